//! One PNG or JPEG image to 8-bit grey or RGB pixels.
//!
//! Not here: resizing, cropping, colour management. Images come in the job's size; a site that has others converts
//! them once, knowingly.

use std::io::Cursor;

use image::{DynamicImage, ImageError, ImageReader};

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

/// Decodes an image. An alpha channel is dropped if every pixel is opaque, else refused; 16-bit images are refused.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<Image, DataError> {
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| DataError::reading(&error))?;
    let mut bounds = image::Limits::default();
    bounds.max_image_width = Some(IMAGE_SIDE_MAX);
    bounds.max_image_height = Some(IMAGE_SIDE_MAX);
    bounds.max_alloc = Some(limits.file_bytes.min(1 << 30));
    reader.limits(bounds);
    let decoded = reader.decode().map_err(|error| damaged(&error))?;
    let (height, width) = (decoded.height() as usize, decoded.width() as usize);
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
        assert_eq!(read(&png(&grey), &Limits::default()).expect("grey"), expected);
        let alpha = DynamicImage::ImageLumaA8(GrayAlphaImage::from_raw(2, 1, vec![3, 255, 4, 255]).expect("size"));
        assert_eq!(read(&png(&alpha), &Limits::default()).expect("opaque"), expected);
        let rgb = DynamicImage::ImageRgb8(RgbImage::from_raw(1, 1, vec![1, 2, 3]).expect("size"));
        assert_eq!(read(&png(&rgb), &Limits::default()).expect("rgb").pixels, [1, 2, 3]);
        let mut jpeg = Cursor::new(Vec::new());
        rgb.write_to(&mut jpeg, ImageFormat::Jpeg).expect("encodes");
        assert_eq!(read(jpeg.get_ref(), &Limits::default()).expect("jpeg").channels, 3);
    }

    #[test]
    fn refuses_transparent_deep_damaged_and_huge() {
        let refused = |bytes: &[u8]| read(bytes, &Limits::default()).expect_err("refused").problem;
        let clear = DynamicImage::ImageLumaA8(GrayAlphaImage::from_raw(1, 1, vec![3, 9]).expect("size"));
        assert_eq!(refused(&png(&clear)), Problem::Unsupported);
        let deep = DynamicImage::ImageLuma16(image::ImageBuffer::from_pixel(1, 1, Luma([300u16])));
        assert_eq!(refused(&png(&deep)), Problem::Unsupported);
        assert_eq!(refused(b"GIF89a"), Problem::Unsupported);
        assert_eq!(refused(b""), Problem::Unsupported);
        let whole = png(&DynamicImage::ImageLuma8(GrayImage::from_raw(2, 2, vec![1, 2, 3, 4]).expect("size")));
        assert_eq!(refused(&whole[..whole.len() / 2]), Problem::Malformed);
        // 16,385 x 16,385 by its header, 33 bytes long.
        let mut huge = whole.clone();
        huge[16..24].copy_from_slice(&[0, 0, 0x40, 1, 0, 0, 0x40, 1]);
        let problem = refused(&huge);
        assert!(matches!(problem, Problem::TooLarge | Problem::Malformed), "{problem:?}");
    }
}
