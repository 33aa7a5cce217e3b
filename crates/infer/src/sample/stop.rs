//! Stop strings over a stream of text.
//!
//! Text arrives in pieces of any size, and a stop string may lie across several. What could still become one is held
//! back; everything else goes out at once.
//!
//! The text stops where the first stop string is *complete*; it is cut at that one's beginning, and if several are
//! complete at once, at the longest. This is what a reader of single characters would do, and it does not depend on
//! the pieces.

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    #[error("stop string {index} is empty: it would stop before the first character")]
    Empty { index: usize },
}

/// The stop strings of one request, and the text that is held back. Plain data: clone it to fork a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
    stopped: Option<usize>,
}

impl StopStrings {
    pub fn new(stops: Vec<String>) -> Result<Self, StopError> {
        match stops.iter().position(String::is_empty) {
            Some(index) => Err(StopError::Empty { index }),
            None => Ok(Self { stops, held: String::new(), stopped: None }),
        }
    }

    /// Takes the next piece and returns what may be shown now. After a stop: nothing, ever.
    pub fn push(&mut self, piece: &str) -> String {
        if self.stopped.is_some() {
            return String::new();
        }
        self.held.push_str(piece);
        // The first to end; of those that end together, the first to begin. Nothing held back before was complete, so
        // the first occurrence of each in what is held is its first in the whole text.
        let complete = self.stops.iter().enumerate().filter_map(|(index, stop)| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start, index))
        });
        if let Some((_, start, index)) = complete.min() {
            self.stopped = Some(index);
            self.held.truncate(start);
            return std::mem::take(&mut self.held);
        }
        let open = self.held.char_indices().map(|(at, _)| at).find(|&at| self.may_become_stop(&self.held[at..]));
        let rest = self.held.split_off(open.unwrap_or(self.held.len()));
        std::mem::replace(&mut self.held, rest)
    }

    /// The text has ended: what was held back is no stop string, and goes out.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Which stop string ended the text.
    pub fn stopped_by(&self) -> Option<&str> {
        self.stopped.map(|index| self.stops[index].as_str())
    }

    fn may_become_stop(&self, end: &str) -> bool {
        self.stops.iter().any(|stop| stop.starts_with(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[String], pieces: &[String]) -> (String, Option<String>) {
        let mut stop = StopStrings::new(stops.to_vec()).expect("none is empty");
        let mut text: String = pieces.iter().map(|piece| stop.push(piece)).collect();
        text.push_str(&stop.finish());
        (text, stop.stopped_by().map(str::to_owned))
    }

    fn own(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn only_what_may_become_a_stop_string_is_held_back() {
        let mut stop = StopStrings::new(own(&["</s>", "\n\nUser:"])).expect("none is empty");
        assert_eq!(stop.push("Hello <"), "Hello ");
        assert_eq!(stop.push("b>\n"), "<b>");
        assert_eq!(stop.push("\n"), "");
        assert_eq!(stop.push("\n"), "\n");
        assert_eq!(stop.push("User"), "");
        assert_eq!(stop.push(": more"), "");
        assert_eq!(stop.stopped_by(), Some("\n\nUser:"));
        assert_eq!((stop.push("never shown"), stop.finish()), (String::new(), String::new()));
    }

    #[test]
    fn the_first_to_be_complete_stops_in_one_piece_or_many() {
        let stops = own(&["abcd", "bc", "c"]);
        for pieces in [own(&["xabcd"]), own(&["xa", "b", "cd"])] {
            assert_eq!(run(&stops, &pieces), ("xa".into(), Some("bc".into())));
        }
        assert_eq!(StopStrings::new(own(&["a", ""])), Err(StopError::Empty { index: 1 }));
    }

    proptest! {
        /// Few letters, one of two bytes, so that stop strings overlap themselves, each other and the ends of pieces.
        #[test]
        fn emitted_text_is_a_prefix_without_stop_strings_whatever_the_pieces(
            stops in proptest::collection::vec("[abé]{1,4}", 0..4),
            pieces in proptest::collection::vec("[abé]{0,5}", 0..12),
        ) {
            let whole = pieces.concat();
            let (text, by) = run(&stops, &pieces);
            prop_assert!(whole.starts_with(&text));
            prop_assert!(!stops.iter().any(|stop| text.contains(stop.as_str())));
            match &by {
                Some(stop) => prop_assert!(whole[text.len()..].starts_with(stop.as_str())),
                None => prop_assert_eq!(&text, &whole),
            }
            let characters: Vec<String> = whole.chars().map(String::from).collect();
            prop_assert_eq!(run(&stops, &characters), (text.clone(), by.clone()));
            prop_assert_eq!(run(&stops, &[whole]), (text, by));
        }
    }
}
