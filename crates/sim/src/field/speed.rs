//! How fast each device computes and sends, and how much memory it has: drawn from a law, or read.
//!
//! A speed of 1 is the machine of ordinary speed that [`crate::world::Costs`] speaks of; at 0.5 local work takes twice as
//! long. The laws have median 1. Their tails are what makes a synchronous round wait.

use super::lines::{FieldError, Lines};
use super::{normal, unit};
use crate::stream::Stream;
use std::collections::HashSet;
use std::fmt;
use std::io::BufRead;
use std::str::FromStr;

/// How speeds are distributed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SpeedLaw {
    /// The logarithm of a speed is normal with this deviation. The slowest of n devices is about e^(sigma sqrt(2 ln n)) times slower
    /// than the median.
    LogNormal { sigma: f64 },
    /// A work takes longer than x times the median with probability x^-shape / 2 (Pareto): the smaller the shape, the heavier
    /// the tail of slow devices. None is faster than 2^(1/shape) times the median.
    Pareto { shape: f64 },
}

/// One device's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    pub speed: f32,
    /// 0: as the link's shape says.
    pub up_mbit_s: f32,
    pub down_mbit_s: f32,
    /// 0: not known.
    pub memory_mb: u32,
}

impl Default for Speed {
    fn default() -> Self {
        Self { speed: 1.0, up_mbit_s: 0.0, down_mbit_s: 0.0, memory_mb: 0 }
    }
}

/// The slowest and fastest device, and link: a day of virtual time for a second's work.
const SPEED_MIN: f32 = 1e-5;
const SPEED_MAX: f32 = 1e5;
const MBIT_S_MIN: f32 = 0.001;
const MBIT_S_MAX: f32 = 1e6;
const MEMORY_MB_MAX: u32 = 1 << 30;

const COLUMNS: [&str; 5] = ["device", "speed", "up_mbit_s", "down_mbit_s", "memory_mb"];
const NEEDED: usize = 2;

impl SpeedLaw {
    /// The speed of the `device`-th device: it follows from the seed and that number, however many there are.
    pub fn speed(self, seed: u64, device: usize) -> f64 {
        let mut stream = Stream::new(seed, &format!("speed of device {device}"));
        let speed = match self {
            Self::LogNormal { sigma } => libm::exp(sigma * normal(&mut stream)),
            // The time is 2^(-1/a) u^(-1/a): its median is 1.
            Self::Pareto { shape } => libm::pow(2.0 * unit(&mut stream), 1.0 / shape),
        };
        speed.clamp(SPEED_MIN.into(), SPEED_MAX.into())
    }
}

impl FromStr for SpeedLaw {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str, min: f64, max: f64| {
            let found = text.parse::<f64>().ok().filter(|value| (min..=max).contains(value));
            found.ok_or_else(|| format!("a number from {min} to {max} behind the colon"))
        };
        match text.split_once(':') {
            Some(("lognormal", sigma)) => Ok(Self::LogNormal { sigma: number(sigma, 0.0, 5.0)? }),
            Some(("pareto", shape)) => Ok(Self::Pareto { shape: number(shape, 0.3, 100.0)? }),
            _ => Err("lognormal:SIGMA or pareto:SHAPE".into()),
        }
    }
}

impl fmt::Display for SpeedLaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LogNormal { sigma } => write!(f, "lognormal:{sigma}"),
            Self::Pareto { shape } => write!(f, "pareto:{shape}"),
        }
    }
}

/// Of many devices.
#[derive(Clone, Debug, PartialEq)]
pub struct Speeds {
    names: Vec<String>,
    speeds: Vec<Speed>,
}

impl Speeds {
    /// Drawn speeds; links and memory as they are.
    pub fn drawn(law: SpeedLaw, seed: u64, names: Vec<String>) -> Self {
        let speed = |device| Speed { speed: law.speed(seed, device) as f32, ..Speed::default() };
        let speeds = (0..names.len()).map(speed).collect();
        Self { names, speeds }
    }

    /// A table as `docs/traces.md` has it: a line for each device.
    pub fn read(input: impl BufRead) -> Result<Self, FieldError> {
        let mut lines = Lines::open(input, &COLUMNS, NEEDED)?;
        let (mut names, mut speeds, mut known) = (Vec::new(), Vec::new(), HashSet::new());
        while let Some(cells) = lines.next()? {
            let name = cells.name(0)?;
            if !known.insert(name.to_owned()) {
                return Err(cells.wrong(0, "each device once", name));
            }
            if names.len() >= super::availability::DEVICES_MAX {
                return Err(cells.wrong(0, format!("at most {} devices", super::availability::DEVICES_MAX), "more"));
            }
            names.push(name.to_owned());
            speeds.push(Speed {
                speed: cells.number(1, SPEED_MIN, SPEED_MAX, None)?,
                up_mbit_s: cells.number(2, MBIT_S_MIN, MBIT_S_MAX, Some(0.0))?,
                down_mbit_s: cells.number(3, MBIT_S_MIN, MBIT_S_MAX, Some(0.0))?,
                memory_mb: cells.number(4, 1, MEMORY_MB_MAX, Some(0))?,
            });
        }
        if names.is_empty() {
            let expected = "a device below the header".into();
            return Err(FieldError { line: 2, column: None, expected, got: "none".into() });
        }
        Ok(Self { names, speeds })
    }

    /// Names and speeds, as [`read`](Self::read) takes them.
    pub fn write(&self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        writeln!(out, "{}", COLUMNS[..NEEDED].join(","))?;
        self.names.iter().zip(&self.speeds).try_for_each(|(name, of)| writeln!(out, "{name},{}", of.speed))
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub fn of(&self, device: usize) -> Speed {
        self.speeds.get(device).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Quantiles against the closed forms: exp(sigma z_p), and for times 2^(-1/a) (1 - p)^(-1/a).
    #[test]
    fn tails_are_the_laws() {
        let n = 100_000;
        let times = |law: SpeedLaw| {
            let mut times: Vec<f64> = (0..n).map(|device| 1.0 / law.speed(7, device)).collect();
            times.sort_by(f64::total_cmp);
            move |p: f64| times[(p * n as f64) as usize]
        };
        let sigma = 1.0;
        let time = times(SpeedLaw::LogNormal { sigma });
        // A quantile's logarithm has the standard error sigma sqrt(p (1 - p) / n) / density(z): 0.0040, 0.0054, 0.0118.
        // Five of them.
        for (p, z, error) in [(0.5, 0.0, 0.0040), (0.9, 1.281_552, 0.0054), (0.99, 2.326_348, 0.0118)] {
            assert!((time(p).ln() - sigma * z).abs() < 5.0 * error, "{p}: {}", time(p));
        }
        let shape = 1.2;
        let time = times(SpeedLaw::Pareto { shape });
        // Of a Pareto law: sqrt(p / (1 - p) / n) / a. Five of them.
        for p in [0.5f64, 0.9, 0.99, 0.999] {
            let expected = -(2f64.ln() + (1.0 - p).ln()) / shape;
            let error = (p / (1.0 - p) / n as f64).sqrt() / shape;
            assert!((time(p).ln() - expected).abs() < 5.0 * error, "{p}: {} for {}", time(p), expected.exp());
        }
    }

    #[test]
    fn laws_are_written_and_read() {
        for text in ["lognormal:1", "pareto:1.5"] {
            assert_eq!(text.parse::<SpeedLaw>().expect(text).to_string(), text);
        }
        for text in ["lognormal", "lognormal:-1", "pareto:0", "normal:1", "lognormal:NaN"] {
            assert!(text.parse::<SpeedLaw>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_table_is_read_with_its_mistakes() {
        let speeds = Speeds::read("speed,device,memory_mb\n0.5,a,512\n2,b,4096\n".as_bytes()).expect("reads");
        assert_eq!(speeds.names(), ["a", "b"]);
        assert_eq!(speeds.of(0), Speed { speed: 0.5, memory_mb: 512, ..Speed::default() });
        assert_eq!(speeds.of(2), Speed::default());
        for (line, column, got) in
            [("a,0", "speed", "0"), ("a,nan", "speed", "nan"), (",1", "device", "nothing"), ("b,1\nb,1", "device", "b")]
        {
            let error = Speeds::read(format!("device,speed\n{line}\n").as_bytes()).expect_err(line);
            assert_eq!((error.column, error.got.as_str()), (Some(column), got), "{error}");
        }
        let drawn = Speeds::drawn(SpeedLaw::LogNormal { sigma: 1.0 }, 3, vec!["a".into(), "b".into()]);
        let mut out = Vec::new();
        drawn.write(&mut out).expect("writes");
        assert_eq!(Speeds::read(&out[..]).expect("reads"), drawn);
    }
}
