//! The privacy-utility curve as SVG: accuracy over ε, ε on a logarithmic axis.
//!
//! A line per mechanism through the means over the seeds, a dot per seed, a dashed line for what is learnt without privacy.
//! Lines differ by colour and by the shape of their marks. Text and axes have the colour of the page's text, light or dark,
//! where the page hands one on, and follow the reader's own setting where it does not.

use std::fmt::Write;

pub struct Curve<'a> {
    pub name: &'a str,
    /// Ascending in ε.
    pub points: Vec<Point>,
}

pub struct Point {
    /// Above 0.
    pub epsilon: f64,
    pub accuracy: f64,
    /// Each seed's.
    pub accuracies: Vec<f64>,
}

pub struct Picture<'a> {
    pub title: &'a str,
    /// How it was made, and what is in it, for those who read the file.
    pub description: &'a str,
    pub x_name: &'a str,
    pub y_name: &'a str,
    pub curves: &'a [Curve<'a>],
    pub without_privacy: Option<f64>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 68.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 58.0;
/// Near Okabe and Ito's colours, apart for colour-blind readers too, and as light as stands out on white and on black.
const COLOURS: [&str; 4] = ["#2288CC", "#D55E00", "#009E73", "#CC79A7"];

/// Empty of points it is a pair of axes.
pub fn svg(picture: &Picture<'_>) -> String {
    let points = || picture.curves.iter().flat_map(|curve| &curve.points);
    let (least, greatest) = span(points().map(|point| point.epsilon));
    let (least, greatest) = if least < greatest { (least, greatest) } else { (least / 2.0, greatest * 2.0) };
    let values = points().flat_map(|point| point.accuracies.iter().copied().chain([point.accuracy]));
    let (low, high) = span(values.chain(picture.without_privacy));
    let step = if high - low > 0.3 { 0.1 } else { 0.05 };
    let (low, high) = ((low / step).floor() * step, ((high / step).floor() + 1.0) * step);
    // A little room beside the first and the last ε.
    let x_at = |epsilon: f64| {
        let share = (epsilon / least).ln() / (greatest / least).ln();
        LEFT + (0.03 + 0.94 * share) * (WIDTH - LEFT - RIGHT)
    };
    let y_at = |accuracy: f64| HEIGHT - BOTTOM - (accuracy - low) / (high - low) * (HEIGHT - TOP - BOTTOM);
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);

    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="sans-serif" font-size="13" fill="currentColor">
<title>{}</title>
<desc>{}</desc>
<style>svg:root {{ color: #222 }} @media (prefers-color-scheme: dark) {{ svg:root {{ color: #ddd }} }}</style>
<text x="{LEFT}" y="26" font-size="16">{}</text>"##,
        escape(picture.title),
        escape(picture.description),
        escape(picture.title),
    );
    let mut marked: Vec<f64> = points().map(|point| point.epsilon).collect();
    marked.sort_by(f64::total_cmp);
    marked.dedup();
    for epsilon in marked {
        let x = x_at(epsilon);
        let _ = writeln!(out, r##"<path d="M{x:.1} {TOP}V{bottom}" stroke="currentColor" stroke-opacity=".15"/>"##);
        let _ = writeln!(out, r##"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{epsilon}</text>"##, bottom + 19.0);
    }
    for i in 0..=((high - low) / step).round() as u32 {
        let value = low + f64::from(i) * step;
        let y = y_at(value);
        let _ = writeln!(out, r##"<path d="M{LEFT} {y:.1}H{right}" stroke="currentColor" stroke-opacity=".15"/>"##);
        let _ = writeln!(out, r##"<text x="{}" y="{:.1}" text-anchor="end">{value:.2}</text>"##, LEFT - 8.0, y + 4.5);
    }
    let _ = writeln!(out, r##"<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="currentColor"/>"##);
    let (x, y) = ((LEFT + right) / 2.0, HEIGHT - 14.0);
    let _ = writeln!(out, r##"<text x="{x}" y="{y}" text-anchor="middle">{}</text>"##, escape(picture.x_name));
    let y = (TOP + bottom) / 2.0;
    let name = escape(picture.y_name);
    let _ = writeln!(out, r##"<text transform="translate(20 {y}) rotate(-90)" text-anchor="middle">{name}</text>"##);

    let mut legend = Vec::new();
    if let Some(accuracy) = picture.without_privacy {
        let style = r##"stroke="currentColor" stroke-width="1.5" stroke-dasharray="7 5""##;
        let y = y_at(accuracy);
        let _ = writeln!(out, r##"<path d="M{LEFT} {y:.1}H{right}" {style}/>"##);
        legend.push((format!(r##"<path d="M0 0h28" {style}/>"##), format!("without privacy ({accuracy:.3})")));
    }
    for (i, curve) in picture.curves.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let line = format!(r##"fill="none" stroke="{colour}" stroke-width="2""##);
        let mut path = String::new();
        let mut marks = String::new();
        for Point { epsilon, accuracy, accuracies } in &curve.points {
            let (x, y) = (x_at(*epsilon), y_at(*accuracy));
            let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { "M" } else { "L" });
            marks.push_str(&mark(i, x, y, colour));
            for seed in accuracies {
                let y = y_at(*seed);
                let _ =
                    write!(marks, r##"<circle cx="{x:.1}" cy="{y:.1}" r="1.8" fill="{colour}" fill-opacity=".7"/>"##);
            }
        }
        let _ = writeln!(out, r##"<path d="{path}" {line}/>{marks}"##);
        legend.push((format!(r##"<path d="M0 0h28" {line}/>{}"##, mark(i, 14.0, 0.0, colour)), escape(curve.name)));
    }
    // At the bottom on the right: curves rise from the left.
    let (x, first) = (right - 240.0, bottom - 16.0 - 21.0 * legend.len().saturating_sub(1) as f64);
    for (i, (sample, text)) in legend.into_iter().enumerate() {
        let y = first + 21.0 * i as f64;
        let _ = writeln!(out, r##"<g transform="translate({x} {y})">{sample}<text x="36" y="4.5">{text}</text></g>"##);
    }
    out.push_str("</svg>\n");
    out
}

/// A hollow circle, square, diamond or triangle around a point.
fn mark(kind: usize, x: f64, y: f64, colour: &str) -> String {
    let style = format!(r##"fill="none" stroke="{colour}" stroke-width="2""##);
    match kind % 4 {
        0 => format!(r##"<circle cx="{x:.1}" cy="{y:.1}" r="5" {style}/>"##),
        1 => format!(r##"<path d="M{:.1} {:.1}h9v9h-9z" {style}/>"##, x - 4.5, y - 4.5),
        2 => format!(r##"<path d="M{x:.1} {:.1}l6 6l-6 6l-6 -6z" {style}/>"##, y - 6.0),
        _ => format!(r##"<path d="M{x:.1} {:.1}l6 10h-12z" {style}/>"##, y - 6.5),
    }
}

/// Least and greatest; 0 and 1 of nothing.
fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    if low <= high { (low, high) } else { (0.0, 1.0) }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doublings_of_epsilon_are_as_far_apart_and_everything_is_inside() {
        let point = |epsilon, accuracy| Point { epsilon, accuracy, accuracies: vec![accuracy - 0.01, accuracy + 0.01] };
        let curves = [Curve { name: "a < b", points: vec![point(1.0, 0.5), point(2.0, 0.7), point(4.0, 0.8)] }];
        let picture = Picture {
            title: "t",
            description: "made by x --a & b",
            x_name: "x",
            y_name: "y",
            curves: &curves,
            without_privacy: Some(0.9),
        };
        let drawn = svg(&picture);
        let circles: Vec<(f64, f64)> = drawn
            .split("<circle cx=\"")
            .skip(1)
            .map(|rest| {
                let mut numbers = rest.split('"').step_by(2).map(|number| number.parse().unwrap());
                (numbers.next().unwrap(), numbers.next().unwrap())
            })
            .collect();
        // Three marks with two seeds each, and the legend's mark.
        assert_eq!(circles.len(), 10);
        let xs: Vec<f64> = circles[..9].iter().step_by(3).map(|(x, _)| *x).collect();
        assert!((xs[2] - xs[1] - (xs[1] - xs[0])).abs() < 0.2, "{xs:?}");
        assert!(
            circles[..9].iter().all(|(x, y)| (LEFT..WIDTH - RIGHT).contains(x) && (TOP..HEIGHT - BOTTOM).contains(y))
        );
        // Higher is better: the third mark lies above the first.
        assert!(circles[6].1 < circles[0].1);
        assert!(
            drawn.contains("a &lt; b") && drawn.contains("--a &amp; b") && drawn.contains("without privacy (0.900)")
        );
    }

    #[test]
    fn of_nothing_and_of_one_point_there_are_axes_without_nan() {
        let one = [Curve { name: "a", points: vec![Point { epsilon: 8.0, accuracy: 0.8, accuracies: vec![0.8] }] }];
        for curves in [&[][..], &one[..]] {
            let picture = Picture { title: "", description: "", x_name: "", y_name: "", curves, without_privacy: None };
            let drawn = svg(&picture);
            assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        }
    }
}
