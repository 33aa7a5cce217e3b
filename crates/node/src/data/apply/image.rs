//! Images, from a folder by class or from an array of bytes.

use super::{Report, class_id, no_rows};
use crate::data::array::{Array, Elements};
use crate::data::error::{DataError, Problem, listed, shown};
use crate::data::mapping::Source;
use crate::data::prepared::{Features, Labels, Prepared};
use crate::data::read::image::Image;
use crate::data::schema::ImageSchema;

/// The class of an image folder's sub-folder.
pub fn folder_class(folder: &str, schema: &ImageSchema, source: &Source) -> Result<u32, DataError> {
    class_id(folder, &schema.classes, source).ok_or_else(|| {
        let expected = format!("a folder for one of {}", listed(schema.classes.iter().map(String::as_str)));
        let hint =
            format!("say which class it is: classes = {{ {folder:?} = … }} in this data set, or move the folder away");
        DataError::new(Problem::UnknownClass, expected, shown(folder), hint)
    })
}

/// An image's pixels, if it has the job's size. Grey becomes colour if the job wants colour, not the other way round.
pub fn pixels(image: Image, schema: &ImageSchema) -> Result<Vec<u8>, DataError> {
    let (height, width, channels) = (schema.height as usize, schema.width as usize, schema.channels as usize);
    let fits = (image.height, image.width) == (height, width);
    if fits && image.channels == channels {
        return Ok(image.pixels);
    }
    if fits && (image.channels, channels) == (1, 3) {
        return Ok(image.pixels.iter().flat_map(|grey| [*grey; 3]).collect());
    }
    let size = |h: usize, w: usize, c: usize| {
        format!("{h} x {w} pixels (height x width), {c} channel{}", if c == 1 { "" } else { "s" })
    };
    let hint = "convert all images to the job's size and channels, once";
    Err(DataError::new(
        Problem::WrongShape,
        size(height, width, channels),
        size(image.height, image.width, image.channels),
        hint,
    ))
}

/// The scale of 8-bit pixels: the model sees 0 to 1.
pub const PIXEL_SCALE: f32 = 1.0 / 255.0;

/// Images from an array of bytes: `[rows, height, width]` (grey), `[rows, height, width, channels]`, or each image
/// flat in that order.
pub fn rows_of_array(array: Array, labels: Labels, schema: &ImageSchema) -> Result<(Prepared, Report), DataError> {
    let (height, width, channels) = (schema.height as usize, schema.width as usize, schema.channels as usize);
    let size = height * width * channels;
    let rows = array.rows();
    let fits = match array.shape.get(1..) {
        Some([h, w]) => channels == 1 && (*h, *w) == (height, width),
        Some([h, w, c]) => (*h, *w, *c) == (height, width, channels),
        Some([flat]) => *flat == size,
        _ => false,
    };
    if !fits {
        let expected = format!("shape [rows, {height}, {width}, {channels}]");
        let hint = "channels come last (numpy.transpose(x, (0, 2, 3, 1))); the size must be the job's";
        return Err(DataError::new(Problem::WrongShape, expected, format!("shape {:?}", array.shape), hint));
    }
    if rows == 0 {
        return Err(no_rows());
    }
    let Elements::U8(values) = array.elements else {
        let hint = "numpy.save(path, (x * 255).round().astype(\"u1\")) if the pixels are 0 to 1";
        return Err(DataError::new(Problem::Unsupported, "8-bit unsigned pixels", "another type", hint));
    };
    let features = Features::U8 { width: size, values, scale: PIXEL_SCALE, offset: 0.0 };
    Ok((Prepared { features, labels }, Report { rows: rows as u64, ..Report::default() }))
}
