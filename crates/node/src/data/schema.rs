//! The job's view of the data: what every device's data must become before training.
//!
//! A schema says the fields (or the image's size, or the text's alphabet), their order and units, and the label. It is
//! part of the job, the same for every device; how one site's files become it is that site's [mapping](super::mapping).
//!
//! ```
//! let schema = littoral_node::data::Schema::from_toml(r#"
//!     label = { name = "diagnosis", classes = ["benign", "malignant"] }
//!
//!     [[fields]]
//!     name = "radius"
//!     unit = "mm"
//!
//!     [[fields]]
//!     name = "sex"
//!     kind = { category = { values = ["female", "male"] } }
//! "#).unwrap();
//! assert_eq!(schema.inputs(), ["radius", "sex=female", "sex=male"]);
//! ```

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::error::{Invalid, shown};
use super::limits::{ALPHABET_MAX, CLASSES_MAX, COLUMNS_MAX, IMAGE_SIDE_MAX};
use super::read::text::words_of;

/// What a job trains on: exactly one of `fields` (with `label`), `image` and `text`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// The label of a table's rows. Needed with `fields`; an image's classes stand in `image`, a text has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Label>,
    /// Images of one size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSchema>,
    /// Text for next-character or next-word prediction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextSchema>,
    /// A table's fields, in the model's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Field>,
}

/// One field of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Its name, unique in the schema.
    pub name: String,
    /// Number (default) or category.
    #[serde(default)]
    pub kind: FieldKind,
    /// The unit of a number, for the people who write mappings: `mm`, `mmol/L`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum FieldKind {
    /// One input.
    #[default]
    Number,
    /// One input per value, 1 for the row's value and 0 for the others (one-hot).
    Category { values: Vec<String> },
}

/// What a table's rows are labelled with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// Its name, not that of a field.
    pub name: String,
    /// The classes in the order of the model's outputs; without them the label is a number (regression).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
    /// The unit of a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// Images as 8-bit pixels; the model sees pixel / 255.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSchema {
    /// Pixels.
    pub height: u32,
    /// Pixels.
    pub width: u32,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: u32,
    /// The classes in the order of the model's outputs.
    pub classes: Vec<String>,
}

/// Text for a next-character model (`alphabet`) or a next-word model (`words`); exactly one of the two is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSchema {
    /// Every character that the model knows; its place is its token id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub alphabet: String,
    /// Every word that the model knows, as [`words_of`] cuts texts; its place is its token id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<String>,
    /// Characters or words that the model sees in one example.
    pub window: u32,
    /// A character of the alphabet, or one of the words, that stands for all that are not known. Without it those are
    /// an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

impl TextSchema {
    /// Characters or words that the model tells apart.
    pub fn tokens(&self) -> usize {
        if self.words.is_empty() { self.alphabet.chars().count() } else { self.words.len() }
    }

    fn check(&self) -> Result<(), Invalid> {
        if self.alphabet.is_empty() == self.words.is_empty() {
            let value = if self.words.is_empty() { "neither" } else { "both" };
            return Err(Invalid::new("text.alphabet", value, "text.alphabet or text.words"));
        }
        if self.words.is_empty() { self.check_alphabet() } else { self.check_words() }?;
        if self.window == 0 || self.window > WINDOW_MAX {
            return Err(Invalid::new("text.window", self.window, format!("1 to {WINDOW_MAX}")));
        }
        let known = |token: &String| match self.words.is_empty() {
            true => token.chars().count() == 1 && self.alphabet.contains(token.as_str()),
            false => self.words.contains(token),
        };
        match &self.unknown {
            Some(unknown) if !known(unknown) => {
                Err(Invalid::new("text.unknown", shown(unknown), "a character of text.alphabet, or one of text.words"))
            }
            _ => Ok(()),
        }
    }

    fn check_alphabet(&self) -> Result<(), Invalid> {
        let count = self.alphabet.chars().count();
        let distinct = self.alphabet.chars().collect::<HashSet<char>>();
        if !(2..=ALPHABET_MAX).contains(&count) || distinct.len() != count {
            let value = format!("{count} characters, {} distinct", distinct.len());
            return Err(Invalid::new("text.alphabet", value, format!("2 to {ALPHABET_MAX} characters, each once")));
        }
        Ok(())
    }

    fn check_words(&self) -> Result<(), Invalid> {
        check_values("text.words", &self.words, 2, ALPHABET_MAX)?;
        // The word for all others need not be one that texts have.
        let usual = |word: &String| words_of(word) == [word.as_str()] || self.unknown.as_ref() == Some(word);
        if let Some(index) = self.words.iter().position(|word| !usual(word)) {
            let allowed = "one word in lower case, or one sign: letters, digits and apostrophes make words";
            return Err(Invalid::new(format!("text.words[{index}]"), shown(&self.words[index]), allowed));
        }
        Ok(())
    }
}

/// Longest text window: one example is one unrolled pass through a recurrent model.
const WINDOW_MAX: u32 = 65_535;

impl Schema {
    /// Parses and checks.
    pub fn from_toml(text: &str) -> Result<Self, Invalid> {
        let schema: Self = toml::from_str(text)
            .map_err(|error| Invalid::new("schema", error.message(), "fields and label, or image, or text"))?;
        schema.check()?;
        Ok(schema)
    }

    /// Checks every value; the error names the field, what it says and what it may say.
    pub fn check(&self) -> Result<(), Invalid> {
        let forms =
            usize::from(!self.fields.is_empty()) + usize::from(self.image.is_some()) + usize::from(self.text.is_some());
        if forms != 1 {
            return Err(Invalid::new("schema", format!("{forms} of them"), "exactly one of fields, image, text"));
        }
        match (&self.label, self.fields.is_empty()) {
            (None, false) => {
                return Err(Invalid::new("label", "nothing", "the label's name, and its classes if it has some"));
            }
            (Some(label), true) => {
                let allowed =
                    "no label here: an image's classes stand in image.classes, a text's label is its next character";
                return Err(Invalid::new("label", shown(&label.name), allowed));
            }
            _ => {}
        }
        self.check_fields()?;
        if let Some(label) = &self.label {
            check_name("label.name", &label.name)?;
            if self.fields.iter().any(|field| field.name == label.name) {
                return Err(Invalid::new("label.name", shown(&label.name), "a name that no field has"));
            }
            if let Some(classes) = &label.classes {
                check_values("label.classes", classes, 2, CLASSES_MAX)?;
            }
        }
        if let Some(image) = &self.image {
            for (name, pixels) in [("image.height", image.height), ("image.width", image.width)] {
                if pixels == 0 || pixels > IMAGE_SIDE_MAX {
                    return Err(Invalid::new(name, pixels, format!("1 to {IMAGE_SIDE_MAX}")));
                }
            }
            if image.channels != 1 && image.channels != 3 {
                return Err(Invalid::new("image.channels", image.channels, "1 (grey) or 3 (colour)"));
            }
            check_values("image.classes", &image.classes, 2, CLASSES_MAX)?;
        }
        if let Some(text) = &self.text {
            text.check()?;
        }
        Ok(())
    }

    fn check_fields(&self) -> Result<(), Invalid> {
        let mut names = HashSet::new();
        let mut inputs = 0;
        for (index, field) in self.fields.iter().enumerate() {
            let path = format!("fields[{index}].name");
            check_name(&path, &field.name)?;
            if !names.insert(&field.name) {
                return Err(Invalid::new(path, shown(&field.name), "each name once"));
            }
            if let FieldKind::Category { values } = &field.kind {
                check_values(&format!("fields[{index}].kind.category.values"), values, 1, COLUMNS_MAX)?;
                if let Some(unit) = &field.unit {
                    return Err(Invalid::new(format!("fields[{index}].unit"), shown(unit), "no unit on a category"));
                }
            }
            inputs += field.width();
        }
        if inputs > COLUMNS_MAX {
            return Err(Invalid::new("fields", format!("{inputs} inputs"), format!("at most {COLUMNS_MAX}")));
        }
        Ok(())
    }

    /// The model's inputs in order, for a table: a number's name, `name=value` for each value of a category.
    pub fn inputs(&self) -> Vec<String> {
        let mut inputs = Vec::new();
        for field in &self.fields {
            match &field.kind {
                FieldKind::Number => inputs.push(field.name.clone()),
                FieldKind::Category { values } => {
                    inputs.extend(values.iter().map(|value| format!("{}={value}", field.name)));
                }
            }
        }
        inputs
    }

    /// The classes of the label, if it has some.
    pub fn classes(&self) -> Option<&[String]> {
        match (&self.label, &self.image) {
            (Some(label), _) => label.classes.as_deref(),
            (None, Some(image)) => Some(&image.classes),
            (None, None) => None,
        }
    }
}

impl Field {
    /// Inputs that this field becomes.
    pub fn width(&self) -> usize {
        match &self.kind {
            FieldKind::Number => 1,
            FieldKind::Category { values } => values.len(),
        }
    }
}

/// Longest name of a field, class or value, in bytes: they travel in every job.
const NAME_BYTES_MAX: usize = 256;

fn check_name(path: &str, name: &str) -> Result<(), Invalid> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.trim() != name || name.chars().any(char::is_control) {
        let allowed = format!("1 to {NAME_BYTES_MAX} bytes without control characters and outer spaces");
        return Err(Invalid::new(path, shown(name), allowed));
    }
    Ok(())
}

fn check_values(path: &str, values: &[String], count_min: usize, count_max: usize) -> Result<(), Invalid> {
    if !(count_min..=count_max).contains(&values.len()) {
        return Err(Invalid::new(path, format!("{} values", values.len()), format!("{count_min} to {count_max}")));
    }
    let mut seen = HashSet::new();
    for (index, value) in values.iter().enumerate() {
        let path = format!("{path}[{index}]");
        check_name(&path, value)?;
        if !seen.insert(value) {
            return Err(Invalid::new(path, shown(value), "each value once"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(toml: &str, field: &str) {
        let error = Schema::from_toml(toml).expect_err(toml);
        assert_eq!(error.field, field, "{error}");
    }

    #[test]
    fn wrong_schemas_name_the_field() {
        let label = "label = { name = \"y\", classes = [\"a\", \"b\"] }\n";
        let with = |rest: &str| format!("{label}{rest}");
        refused("", "schema");
        refused(label, "schema");
        refused("[[fields]]\nname = \"x\"", "label");
        refused(&with("[[fields]]\nname = \"x\"\ntypo = 1"), "schema");
        refused(&with("[[fields]]\nname = \" x\""), "fields[0].name");
        refused(&with("[[fields]]\nname = \"x\"\n[[fields]]\nname = \"x\""), "fields[1].name");
        refused(&with("[[fields]]\nname = \"y\""), "label.name");
        refused(
            &with("[[fields]]\nname = \"x\"\nkind = { category = { values = [] } }"),
            "fields[0].kind.category.values",
        );
        refused(&with("[text]\nalphabet = \"ab\"\nwindow = 4"), "label");
        refused("label = { name = \"y\", classes = [\"a\"] }\n[[fields]]\nname = \"x\"", "label.classes");
        refused("[image]\nheight = 0\nwidth = 1\nchannels = 1\nclasses = [\"a\", \"b\"]", "image.height");
        refused("[image]\nheight = 1\nwidth = 1\nchannels = 4\nclasses = [\"a\", \"b\"]", "image.channels");
        refused("[text]\nalphabet = \"aa\"\nwindow = 4", "text.alphabet");
        refused("[text]\nalphabet = \"ab\"\nwindow = 0", "text.window");
        refused("[text]\nalphabet = \"ab\"\nwindow = 4\nunknown = \"c\"", "text.unknown");
        refused("[text]\nalphabet = \"ab\"\nwindow = 4\nunknown = \"ab\"", "text.unknown");
        refused("[text]\nwindow = 4", "text.alphabet");
        refused("[text]\nalphabet = \"ab\"\nwords = [\"a\", \"b\"]\nwindow = 4", "text.alphabet");
        refused("[text]\nwords = [\"to\", \"Be\"]\nwindow = 4", "text.words[1]");
        refused("[text]\nwords = [\"to\", \"be\"]\nunknown = \"or\"\nwindow = 4", "text.unknown");
        assert!(Schema::from_toml("[text]\nwords = [\"to\", \"<other>\"]\nunknown = \"<other>\"\nwindow = 4").is_ok());
    }

    #[test]
    fn toml_round_trip() {
        let schema = Schema {
            label: Some(Label { name: "y".into(), classes: None, unit: Some("EUR".into()) }),
            fields: vec![
                Field { name: "a".into(), kind: FieldKind::Number, unit: None },
                Field { name: "b".into(), kind: FieldKind::Category { values: vec!["u".into()] }, unit: None },
            ],
            ..Schema::default()
        };
        let text = toml::to_string(&schema).expect("writes");
        assert_eq!(Schema::from_toml(&text).expect(&text), schema);
    }
}
