//! Feature skew: the same world seen through each device's own instruments.
//!
//! | kind | of | what device i does, for ever |
//! |---|---|---|
//! | `affine:S` | numbers | x becomes e^(S a) x + S b sd(column): a and b normal draws for each column, another gain and zero |
//! | `noise:S` | numbers, images | adds normal noise of deviation S sqrt(i / n) sd(column), of a pixel's full scale for images: the i-th of n devices sees worst (Li et al. 2022, arXiv:2102.02079, section 4.2) |
//! | `rotation:DEGREES` | images | turns by one angle, uniform up to this to either side; what comes in from outside is 0 |
//! | `contrast:S` | images | a pixel's distance from the middle grey times e^(S a), a normal draw |
//!
//! A change follows from the seed, the device's number and the column's name, so a table in memory and one in a file
//! change alike. 0 changes nothing. Which rows a device has is not decided here.

use super::split::number;
use crate::data::error::Invalid;
use crate::data::prepared::{Features, Prepared};
use crate::data::random::{normal, unit};
use crate::data::schema::{FieldKind, Schema};
use libm::{cos, exp, sin};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use std::fmt;
use std::str::FromStr;

/// One kind of change, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Feature {
    Affine { strength: f64 },
    Noise { deviation: f64 },
    Rotation { degrees: f64 },
    Contrast { strength: f64 },
}

/// What a change may be.
pub const ALLOWED: &str = "feature:affine:S, feature:noise:S, feature:rotation:DEGREES or feature:contrast:S";

/// One device of many, for which data are changed.
#[derive(Debug, Clone, Copy)]
pub struct Seat {
    /// From 0.
    pub device: usize,
    pub devices: usize,
    pub seed: u64,
}

impl Seat {
    fn random(&self, feature: Feature, column: &str) -> ChaCha8Rng {
        let mut key = Vec::with_capacity(64);
        key.extend(self.seed.to_le_bytes());
        key.extend((self.device as u64).to_le_bytes());
        key.extend(feature.kind().as_bytes());
        key.push(0);
        key.extend(column.as_bytes());
        ChaCha8Rng::from_seed(blake3::derive_key("littoral data feature 1", &key))
    }
}

/// A column of numbers at one device.
pub struct Column {
    scale: f64,
    offset: f64,
    noise: f64,
    random: ChaCha8Rng,
}

impl Column {
    /// The next row's value, in the order of the device's rows.
    pub fn value(&mut self, x: f64) -> f64 {
        let noise = if self.noise > 0.0 { self.noise * normal(&mut self.random) } else { 0.0 };
        self.scale * x + self.offset + noise
    }
}

/// Images of 8-bit pixels at one device.
pub struct Images {
    feature: Feature,
    /// Of the angle.
    sine: f64,
    cosine: f64,
    gain: f64,
    noise: f64,
    random: ChaCha8Rng,
}

impl Feature {
    fn kind(self) -> &'static str {
        match self {
            Self::Affine { .. } => "affine",
            Self::Noise { .. } => "noise",
            Self::Rotation { .. } => "rotation",
            Self::Contrast { .. } => "contrast",
        }
    }

    pub fn of_numbers(self) -> bool {
        matches!(self, Self::Affine { .. } | Self::Noise { .. })
    }

    pub fn of_images(self) -> bool {
        !matches!(self, Self::Affine { .. })
    }

    fn noise(self, seat: &Seat) -> f64 {
        match self {
            Self::Noise { deviation } => deviation * ((seat.device + 1) as f64 / seat.devices as f64).sqrt(),
            _ => 0.0,
        }
    }

    /// `deviation`: of the column, over all rows of all devices.
    pub fn column(self, seat: &Seat, column: &str, deviation: f64) -> Column {
        let mut random = seat.random(self, column);
        let (scale, offset) = match self {
            Self::Affine { strength } => {
                (exp(strength * normal(&mut random)), strength * normal(&mut random) * deviation)
            }
            _ => (1.0, 0.0),
        };
        Column { scale, offset, noise: self.noise(seat) * deviation, random }
    }

    pub fn images(self, seat: &Seat) -> Images {
        let mut random = seat.random(self, "");
        let (angle, gain) = match self {
            Self::Rotation { degrees } => ((2.0 * unit(&mut random) - 1.0) * degrees.to_radians(), 1.0),
            Self::Contrast { strength } => (0.0, exp(strength * normal(&mut random))),
            _ => (0.0, 1.0),
        };
        Images { feature: self, sine: sin(angle), cosine: cos(angle), gain, noise: self.noise(seat) * 255.0, random }
    }
}

impl Images {
    /// One image, height x width x channels, in the order of the device's rows.
    pub fn image(&mut self, pixels: &mut [u8], height: usize, width: usize) {
        match self.feature {
            Feature::Rotation { .. } => self.turn(pixels, height, width),
            Feature::Contrast { .. } => {
                for pixel in pixels {
                    *pixel = whole(127.5 + self.gain * (f64::from(*pixel) - 127.5));
                }
            }
            Feature::Noise { .. } => {
                for pixel in pixels {
                    *pixel = whole(f64::from(*pixel) + self.noise * normal(&mut self.random));
                }
            }
            Feature::Affine { .. } => {}
        }
    }

    /// Each pixel from where it was before the turn, between its four neighbours there.
    fn turn(&self, pixels: &mut [u8], height: usize, width: usize) {
        let channels = pixels.len() / (height * width).max(1);
        let from = pixels.to_vec();
        let (middle_y, middle_x) = ((height as f64 - 1.0) / 2.0, (width as f64 - 1.0) / 2.0);
        for y in 0..height {
            for x in 0..width {
                let (dy, dx) = (y as f64 - middle_y, x as f64 - middle_x);
                let source_y = middle_y + self.cosine * dy - self.sine * dx;
                let source_x = middle_x + self.sine * dy + self.cosine * dx;
                let (top, left) = (source_y.floor(), source_x.floor());
                let (down, right) = (source_y - top, source_x - left);
                for channel in 0..channels {
                    let at = |row: f64, column: f64| {
                        let inside = (0.0..height as f64).contains(&row) && (0.0..width as f64).contains(&column);
                        let place = || (row as usize * width + column as usize) * channels + channel;
                        if inside { f64::from(from[place()]) } else { 0.0 }
                    };
                    let upper = at(top, left) * (1.0 - right) + at(top, left + 1.0) * right;
                    let lower = at(top + 1.0, left) * (1.0 - right) + at(top + 1.0, left + 1.0) * right;
                    pixels[(y * width + x) * channels + channel] = whole(upper * (1.0 - down) + lower * down);
                }
            }
        }
    }
}

fn whole(value: f64) -> u8 {
    value.round().clamp(0.0, 255.0) as u8
}

/// The deviations that changes of prepared rows need: of each input, over the whole table.
pub fn deviations(rows: &Prepared) -> Vec<f64> {
    match &rows.features {
        Features::F32 { width, values } => (0..*width)
            .map(|column| deviation(values.iter().skip(column).step_by(*width).map(|value| f64::from(*value))))
            .collect(),
        Features::U8 { .. } | Features::Tokens { .. } => Vec::new(),
    }
}

/// Standard deviation of what is finite; 0 of nothing.
pub fn deviation(values: impl Iterator<Item = f64>) -> f64 {
    // Welford 1962: one pass, without a difference of large sums.
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for value in values.filter(|value| value.is_finite()) {
        count += 1.0;
        let before = value - mean;
        mean += before / count;
        squares += before * (value - mean);
    }
    if count > 0.0 { (squares / count).sqrt() } else { 0.0 }
}

/// Changes one device's rows, brought to a job's schema. `deviations`: [`deviations`] of the whole table.
pub fn change(
    rows: &mut Prepared,
    schema: &Schema,
    features: &[Feature],
    seat: &Seat,
    deviations: &[f64],
) -> Result<(), Invalid> {
    for feature in features {
        let refused = |what: &str| Err(Invalid::new("feature", feature, format!("a change of {what}")));
        match (&mut rows.features, &schema.image) {
            (Features::F32 { width, values }, _) if feature.of_numbers() => {
                let mut input = 0;
                for field in &schema.fields {
                    if let FieldKind::Category { values } = &field.kind {
                        input += values.len();
                        continue;
                    }
                    let mut column = feature.column(seat, &field.name, deviations.get(input).copied().unwrap_or(0.0));
                    for value in values.iter_mut().skip(input).step_by(*width) {
                        *value = column.value(f64::from(*value)) as f32;
                    }
                    input += 1;
                }
            }
            (Features::U8 { width, values, .. }, Some(image)) if feature.of_images() => {
                let mut images = feature.images(seat);
                for pixels in values.chunks_exact_mut(*width) {
                    images.image(pixels, image.height as usize, image.width as usize);
                }
            }
            (Features::F32 { .. }, _) => return refused("numbers: affine or noise"),
            (Features::U8 { .. }, _) => return refused("images: rotation, contrast or noise"),
            (Features::Tokens { .. }, _) => return refused("numbers or images, and these rows are text"),
        }
    }
    Ok(())
}

impl FromStr for Feature {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (kind, amount) = text.strip_prefix("feature:").and_then(|rest| rest.split_once(':')).unwrap_or_default();
        match kind {
            "affine" => Ok(Self::Affine { strength: number(kind, amount, 0.0, 10.0)? }),
            "noise" => Ok(Self::Noise { deviation: number(kind, amount, 0.0, 100.0)? }),
            "rotation" => Ok(Self::Rotation { degrees: number(kind, amount, 0.0, 180.0)? }),
            "contrast" => Ok(Self::Contrast { strength: number(kind, amount, 0.0, 10.0)? }),
            _ => Err(Invalid::new("by", format!("{text:?}"), ALLOWED)),
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = match self {
            Self::Affine { strength } | Self::Contrast { strength } => strength,
            Self::Noise { deviation } => deviation,
            Self::Rotation { degrees } => degrees,
        };
        write!(f, "feature:{}:{amount}", self.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAT: Seat = Seat { device: 2, devices: 10, seed: 4 };

    #[test]
    fn kinds_are_written_and_read() {
        for text in ["feature:affine:0.5", "feature:noise:2", "feature:rotation:30", "feature:contrast:1"] {
            assert_eq!(text.parse::<Feature>().expect(text).to_string(), text);
        }
        for text in ["feature", "feature:affine", "feature:affine:-1", "feature:rotation:181", "feature:blur:1", "iid"]
        {
            assert!(text.parse::<Feature>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_device_keeps_its_gain_and_zero() {
        let feature = Feature::Affine { strength: 0.5 };
        let mut column = feature.column(&SEAT, "weight", 3.0);
        let (zero, one, two) = (column.value(0.0), column.value(1.0), column.value(2.0));
        assert!((two - one - (one - zero)).abs() < 1e-12 && one > zero && zero != 0.0);
        assert_eq!(feature.column(&SEAT, "weight", 3.0).value(1.0), one);
        assert_ne!(feature.column(&SEAT, "height", 3.0).value(1.0), one);
        assert_ne!(feature.column(&Seat { device: 3, ..SEAT }, "weight", 3.0).value(1.0), one);
        assert_eq!(Feature::Affine { strength: 0.0 }.column(&SEAT, "weight", 3.0).value(1.0), 1.0);
    }

    #[test]
    fn noise_grows_from_device_to_device() {
        let feature = Feature::Noise { deviation: 2.0 };
        let measured = |device| {
            let mut column = feature.column(&Seat { device, ..SEAT }, "x", 3.0);
            deviation((0..40_000).map(|_| column.value(1.0)))
        };
        // Deviation 2 x sqrt(i / 10) x 3; its standard error is 1 / sqrt(2 n) = 0.35 % of it, five of them.
        for (device, expected) in [(0, 6.0 * 0.1f64.sqrt()), (9, 6.0)] {
            assert!((measured(device) / expected - 1.0).abs() < 0.018, "{device}: {}", measured(device));
        }
    }

    #[test]
    fn images_turn_and_fade() {
        let mut quarter = Feature::Rotation { degrees: 0.0 }.images(&SEAT);
        (quarter.sine, quarter.cosine) = (1.0, 0.0);
        let mut image = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        quarter.image(&mut image, 3, 3);
        assert_eq!(image, [7, 4, 1, 8, 5, 2, 9, 6, 3]);
        let mut same = image;
        Feature::Rotation { degrees: 0.0 }.images(&SEAT).image(&mut same, 3, 3);
        assert_eq!(same, image);
        let mut pair = [100, 155];
        let mut contrast = Feature::Contrast { strength: 1.0 }.images(&SEAT);
        contrast.gain = 2.0;
        contrast.image(&mut pair, 1, 2);
        assert_eq!(pair, [73, 183], "127.5 - 2 x 27.5 and 127.5 + 2 x 27.5, rounded away from 0");
    }
}
