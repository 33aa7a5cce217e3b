//! One PNG or JPEG image to 8-bit grey or RGB pixels.
//!
//! Not here: resizing, cropping, colour management. Images come in the job's size; a site that has others converts
//! them once, knowingly.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::{DynamicImage, ImageDecoder, ImageError, ImageReader};

use crate::data::error::{DataError, Problem};
use crate::data::limits::{IMAGE_SIDE_MAX, Limits};

/// Pixels of one image: `height x width x channels`, channels together (HWC), rows from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub height: usize,
    pub width: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    pub pixels: Vec<u8>,
}

/// Decodes an image of the size that is wanted; another is refused by its header, before a claim of any size takes memory.
/// An alpha channel is dropped if every pixel is opaque, else refused; 16-bit images are refused.
pub fn read(bytes: &[u8], (height, width): (u32, u32), limits: &Limits) -> Result<Image, DataError> {
    // The decoders give some damaged files up with a panic; they own all that they touch.
    let decoded = catch_unwind(AssertUnwindSafe(|| decode(bytes, (height, width), limits))).unwrap_or_else(|_| {
        let expected = "a whole PNG or JPEG image";
        Err(DataError::new(Problem::Malformed, expected, "one that the decoder gives up", "copy the file again"))
    })?;
    let (height, width) = (height as usize, width as usize);
    let (channels, pixels) = match decoded {
        DynamicImage::ImageLuma8(grey) => (1, grey.into_raw()),
        DynamicImage::ImageRgb8(rgb) => (3, rgb.into_raw()),
        DynamicImage::ImageLumaA8(grey) => (1, opaque::<2>(&grey.into_raw())?),
        DynamicImage::ImageRgba8(rgb) => (3, opaque::<4>(&rgb.into_raw())?),
        other => {
            let hint = "convert the images to 8 bits per channel";
            return Err(DataError::new(Problem::Unsupported, "8-bit pixels", format!("{:?}", other.color()), hint));
        }
    };
    Ok(Image { height, width, channels, pixels })
}

fn decode(bytes: &[u8], (height, width): (u32, u32), limits: &Limits) -> Result<DynamicImage, DataError> {
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| DataError::reading(&error))?;
    let mut bounds = image::Limits::default();
    bounds.max_image_width = Some(IMAGE_SIDE_MAX);
    bounds.max_image_height = Some(IMAGE_SIDE_MAX);
    bounds.max_alloc = Some(limits.file_bytes.min(1 << 30));
    reader.limits(bounds);
    let decoder = reader.into_decoder().map_err(|error| damaged(&error))?;
    let got = decoder.dimensions();
    if got != (width, height) {
        let size = |(width, height): (u32, u32)| format!("{height} x {width} pixels (height x width)");
        let hint = "convert all images to the job's size, once";
        return Err(DataError::new(Problem::WrongShape, size((width, height)), size(got), hint));
    }
    DynamicImage::from_decoder(decoder).map_err(|error| damaged(&error))
}

/// Drops the last of N channels if it is 255 everywhere.
fn opaque<const N: usize>(pixels: &[u8]) -> Result<Vec<u8>, DataError> {
    let (pixels, _) = pixels.as_chunks::<N>();
    if pixels.iter().any(|pixel| pixel[N - 1] != 255) {
        let hint = "put the images on a background: what is behind them would be guessed here";
        return Err(DataError::new(Problem::Unsupported, "opaque pixels", "transparent ones", hint));
    }
    Ok(pixels.iter().flat_map(|pixel| &pixel[..N - 1]).copied().collect())
}

fn damaged(error: &ImageError) -> DataError {
    match error {
        ImageError::Limits(_) => {
            let expected = format!("sides of at most {IMAGE_SIDE_MAX} pixels");
            DataError::new(Problem::TooLarge, expected, error.to_string(), "convert the image to the job's size")
        }
        ImageError::Unsupported(_) => {
            DataError::new(Problem::Unsupported, "PNG or JPEG", error.to_string(), "convert the image to PNG")
        }
        _ => DataError::new(Problem::Malformed, "a whole PNG or JPEG image", error.to_string(), "copy the file again"),
    }
}

#[cfg(test)]
mod tests {
    use image::{GrayAlphaImage, GrayImage, ImageFormat, Luma, RgbImage};

    use super::*;

    fn png(image: &DynamicImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).expect("encodes");
        bytes.into_inner()
    }

    #[test]
    fn reads_grey_rgb_opaque_alpha_and_jpeg() {
        let grey = DynamicImage::ImageLuma8(GrayImage::from_raw(2, 1, vec![3, 4]).expect("size"));
        let expected = Image { height: 1, width: 2, channels: 1, pixels: vec![3, 4] };
        let limits = Limits::default();
        assert_eq!(read(&png(&grey), (1, 2), &limits).expect("grey"), expected);
        let alpha = DynamicImage::ImageLumaA8(GrayAlphaImage::from_raw(2, 1, vec![3, 255, 4, 255]).expect("size"));
        assert_eq!(read(&png(&alpha), (1, 2), &limits).expect("opaque"), expected);
        let rgb = DynamicImage::ImageRgb8(RgbImage::from_raw(1, 1, vec![1, 2, 3]).expect("size"));
        assert_eq!(read(&png(&rgb), (1, 1), &limits).expect("rgb").pixels, [1, 2, 3]);
        let mut jpeg = Cursor::new(Vec::new());
        rgb.write_to(&mut jpeg, ImageFormat::Jpeg).expect("encodes");
        assert_eq!(read(jpeg.get_ref(), (1, 1), &limits).expect("jpeg").channels, 3);
    }

    #[test]
    fn refuses_transparent_deep_damaged_and_huge() {
        let limits = Limits::default();
        let refused = |bytes: &[u8]| read(bytes, (1, 1), &limits).expect_err("refused").problem;
        let clear = DynamicImage::ImageLumaA8(GrayAlphaImage::from_raw(1, 1, vec![3, 9]).expect("size"));
        assert_eq!(refused(&png(&clear)), Problem::Unsupported);
        let deep = DynamicImage::ImageLuma16(image::ImageBuffer::from_pixel(1, 1, Luma([300u16])));
        assert_eq!(refused(&png(&deep)), Problem::Unsupported);
        assert_eq!(refused(b"GIF89a"), Problem::Unsupported);
        assert_eq!(refused(b""), Problem::Unsupported);
        let whole = png(&DynamicImage::ImageLuma8(GrayImage::from_raw(2, 2, vec![1, 2, 3, 4]).expect("size")));
        let half = read(&whole[..whole.len() / 2], (2, 2), &limits).expect_err("half an image");
        assert_eq!(half.problem, Problem::Malformed);
        assert_eq!(refused(&whole), Problem::WrongShape);
        // By its header 16,384 x 16,384, or one more: 268 MB that the file does not have.
        let claims = |side: u32| {
            let sides = [side.to_be_bytes(), side.to_be_bytes()].concat();
            refused(&[SIGNATURE, &chunk(b"IHDR", &[&sides[..], &[8, 0, 0, 0, 0]].concat()), &whole[33..]].concat())
        };
        assert_eq!((claims(16_384), claims(16_385)), (Problem::WrongShape, Problem::TooLarge));
    }

    const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let mut sum = flate2::Crc::new();
        sum.update(kind);
        sum.update(data);
        [&(data.len() as u32).to_be_bytes(), &kind[..], data, &sum.sum().to_be_bytes()].concat()
    }

    /// Both meet their decoder with a panic: the JPEG's third component has more samples than its first, the PNG's palette
    /// ends inside of a colour.
    #[test]
    fn images_that_a_decoder_gives_up_are_refused() {
        let frame = b"\xff\xc2\0\x11\x08\0\x03\0\x04\x03\x01\x11\0\x02\x11\0\x03\x22\0";
        let jpeg = [&b"\xff\xd8\xff\xdb\0\x43\0"[..], &[1; 64], frame, b"\xff\xda\0\x08\x01\x03\0\x01\0\xd9"].concat();
        let png = [
            SIGNATURE,
            &chunk(b"IHDR", &[0, 0, 0, 4, 0, 0, 0, 3, 8, 3, 0, 0, 0]),
            &chunk(b"PLTE", &[0; 5]),
            &chunk(b"tRNS", &[0xff, 0xff]),
            &chunk(b"IDAT", b"\x78\x9c\x63\x60\x40\x01\0\0\x0f\0\x01"),
        ]
        .concat();
        for file in [jpeg, png] {
            let error = read(&file, (3, 4), &Limits::default()).expect_err("no image");
            assert_eq!((error.problem, &*error.got), (Problem::Malformed, "one that the decoder gives up"));
        }
    }
}
