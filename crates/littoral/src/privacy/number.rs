//! Numbers for people.

/// An epsilon with this many digits after the point; from 1,000 on, where it protects nobody, its magnitude.
pub fn epsilon(value: f64, digits: usize) -> String {
    if value < 1e3 { format!("{value:.digits$}") } else { format!("{value:.1e}") }
}

/// A number as it was given, never hundreds of digits of it.
pub fn plain(value: f64) -> String {
    if value == 0.0 || (1e-4..1e6).contains(&value.abs()) { value.to_string() } else { format!("{value:e}") }
}

/// Sentences on a job, whose epsilons are written out, with [`epsilon`]s in them.
pub fn shortened(told: &str) -> String {
    const BEFORE: &str = "ε = ";
    let mut parts = told.split(BEFORE);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(part.len());
        let (number, rest) = part.split_at(end);
        let number = number.parse().map_or(number.to_owned(), |number| epsilon(number, 2));
        out += &format!("{BEFORE}{number}{rest}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([epsilon(1.828244, 2), epsilon(999.0, 4), epsilon(2.7123e21, 4)], ["1.83", "999.0000", "2.7e21"]);
        assert_eq!([plain(1e308), plain(-1e-300), plain(1e-5), plain(0.0)], ["1e308", "-1e-300", "1e-5", "0"]);
        assert_eq!([plain(1e-4), plain(2.5), plain(999_999.0), plain(1.0 / 0.0)], ["0.0001", "2.5", "999999", "inf"]);
        let told = "To a (ε = 1.83, δ = 1e-5), b (ε = 2712300000000000000000.00, δ = 1e-5), c (no guarantee).";
        let short = "To a (ε = 1.83, δ = 1e-5), b (ε = 2.7e21, δ = 1e-5), c (no guarantee).";
        assert_eq!((shortened(told).as_str(), shortened("ε = ")), (short, "ε = ".into()));
    }
}
