//! Curves as SVG: a few lines of text that every browser draws.

use std::fmt::Write;

/// A named curve; its points in ascending order of x.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 160.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 52.0;
/// Okabe and Ito's colours: apart for colour-blind readers too. Dashes tell curves apart in print.
const COLOURS: [&str; 8] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"];
const DASHES: [&str; 4] = ["", "7 3", "2 3", "9 3 2 3"];

/// Curves over a common pair of axes. Points that are not finite are left out.
pub fn plot(title: &str, x_name: &str, y_name: &str, curves: &[Curve]) -> String {
    let points = || curves.iter().flat_map(|c| &c.points).filter(|(x, y)| x.is_finite() && y.is_finite());
    let (x_min, x_max) = span(points().map(|p| p.0));
    let (y_min, y_max) = span(points().map(|p| p.1));
    let x_at = |x: f64| LEFT + (x - x_min) / (x_max - x_min) * (WIDTH - LEFT - RIGHT);
    let y_at = |y: f64| HEIGHT - BOTTOM - (y - y_min) / (y_max - y_min) * (HEIGHT - TOP - BOTTOM);

    let mut svg = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#fff"/>
<text x="{LEFT}" y="22" font-size="15">{}</text>"##,
        escape(title)
    );
    for tick in ticks(x_min, x_max) {
        let x = x_at(tick);
        let (y, y_text) = (HEIGHT - BOTTOM, HEIGHT - BOTTOM + 18.0);
        let _ = writeln!(svg, r##"<path d="M{x:.1} {TOP}V{y}" stroke="#ddd"/>"##);
        let _ = writeln!(svg, r##"<text x="{x:.1}" y="{y_text}" text-anchor="middle">{}</text>"##, number(tick));
    }
    for tick in ticks(y_min, y_max) {
        let y = y_at(tick);
        let (end, x_text, y_text) = (WIDTH - RIGHT, LEFT - 8.0, y + 4.0);
        let _ = writeln!(svg, r##"<path d="M{LEFT} {y:.1}H{end}" stroke="#ddd"/>"##);
        let _ = writeln!(svg, r##"<text x="{x_text}" y="{y_text:.1}" text-anchor="end">{}</text>"##, number(tick));
    }
    let (x_middle, y_middle) = ((LEFT + WIDTH - RIGHT) / 2.0, (TOP + HEIGHT - BOTTOM) / 2.0);
    let below = HEIGHT - 12.0;
    let _ = writeln!(svg, r##"<text x="{x_middle}" y="{below}" text-anchor="middle">{}</text>"##, escape(x_name));
    let _ = writeln!(
        svg,
        r##"<text transform="translate(16 {y_middle}) rotate(-90)" text-anchor="middle">{}</text>"##,
        escape(y_name)
    );
    for (i, curve) in curves.iter().enumerate() {
        let (colour, dash) = (COLOURS[i % COLOURS.len()], DASHES[i % DASHES.len()]);
        let style = format!(r##"fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}""##);
        let mut path = String::new();
        for (x, y) in curve.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite()) {
            let step = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{step}{:.1} {:.1}", x_at(*x), y_at(*y));
        }
        if !path.is_empty() {
            let _ = writeln!(svg, r##"<path d="{path}" {style}/>"##);
        }
        let (x, y) = (WIDTH - RIGHT + 12.0, TOP + 10.0 + 20.0 * i as f64);
        let _ = writeln!(svg, r##"<path d="M{x} {y}h24" {style}/>"##);
        let _ = writeln!(svg, r##"<text x="{}" y="{}">{}</text>"##, x + 30.0, y + 4.0, escape(&curve.name));
    }
    svg.push_str("</svg>\n");
    svg
}

/// Least and greatest; never of zero length.
fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, greatest) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    match least.partial_cmp(&greatest) {
        Some(std::cmp::Ordering::Less) => (least, greatest),
        Some(std::cmp::Ordering::Equal) => (least - 0.5, least + 0.5),
        _ => (0.0, 1.0),
    }
}

/// Multiples of 1, 2 or 5 times a power of ten, about six of them.
fn ticks(from: f64, to: f64) -> Vec<f64> {
    let rough = (to - from) / 6.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= rough).unwrap_or(10.0 * power);
    let first = (from / step).ceil() as i64;
    // A thousandth of a step hides the division's rounding.
    (first..).map(|i| i as f64 * step).take_while(|tick| *tick <= to + step * 1e-3).take(32).collect()
}

fn number(value: f64) -> String {
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers() {
        let texts = |a, b| ticks(a, b).into_iter().map(number).collect::<Vec<_>>().join(" ");
        assert_eq!(texts(0.0, 1.0), "0 0.2 0.4 0.6 0.8 1");
        assert_eq!(texts(0.93, 0.97), "0.93 0.94 0.95 0.96 0.97");
        assert_eq!(texts(1.0, 40.0), "10 20 30 40");
    }

    #[test]
    fn a_plot_is_well_formed_whatever_it_is_given() {
        let curves = [
            Curve { name: "fedavg <1>".into(), points: vec![(1.0, 0.5), (2.0, 0.75), (3.0, f64::NAN)] },
            Curve { name: "none".into(), points: vec![] },
        ];
        let svg = plot("accuracy & more", "round", "accuracy", &curves);
        assert!(svg.contains("fedavg &lt;1&gt;") && svg.contains("accuracy &amp; more"));
        assert!(svg.contains(r#"d="M64.0 368.0L560.0 40.0""#), "{svg}");
        assert!(!svg.contains("NaN"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        assert!(plot("", "", "", &[]).ends_with("</svg>\n"));
    }
}
