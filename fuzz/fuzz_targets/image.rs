//! A site's PNG or JPEG image. Its header may claim any size; memory follows what the job wants.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_fuzz::one_line;
use littoral_node::data::Limits;
use littoral_node::data::apply::image::pixels;
use littoral_node::data::read::image::read;
use littoral_node::data::schema::ImageSchema;

// Panics of the two decoders are the reader's to turn into errors; all others end the run, as always.
fuzz_target!(init: {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let of_a_decoder = |file: &str| file.contains("/zune-jpeg-") || file.contains("/png-");
        if !panic.location().is_some_and(|place| of_a_decoder(place.file())) {
            before(panic);
        }
    }));
}, |bytes: &[u8]| {
    let schema = ImageSchema { height: 3, width: 4, channels: 3, classes: vec!["a".into(), "b".into()] };
    match read(bytes, (schema.height, schema.width), &Limits::default()) {
        Ok(image) => {
            assert_eq!((image.height, image.width, image.pixels.len()), (3, 4, 12 * image.channels));
            match pixels(image, &schema) {
                Ok(pixels) => assert_eq!(pixels.len(), 36),
                Err(error) => one_line(error),
            }
        }
        Err(error) => one_line(error),
    }
});
