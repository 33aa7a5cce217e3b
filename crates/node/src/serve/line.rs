//! Who comes next: clients in turn, each one's own requests in order.
//!
//! A client that asks a hundred things at once waits for its own hundred; another that asks one thing waits for one
//! answer.

use std::collections::VecDeque;

/// Whoever is to be treated as one: an API key, else an address.
pub type Client = [u8; 32];

pub struct Line<T> {
    /// The client whose turn is next comes first; none is without a request.
    clients: VecDeque<(Client, VecDeque<T>)>,
}

impl<T> Line<T> {
    pub fn new() -> Self {
        Self { clients: VecDeque::new() }
    }

    pub fn len(&self) -> usize {
        self.clients.iter().map(|(_, items)| items.len()).sum()
    }

    pub fn push(&mut self, client: Client, item: T) {
        match self.clients.iter_mut().find(|(other, _)| *other == client) {
            Some((_, items)) => items.push_back(item),
            None => self.clients.push_back((client, VecDeque::from([item]))),
        }
    }

    /// Items that come before one that this client would push now, if nobody else comes.
    pub fn before(&self, client: Client) -> usize {
        let own = self.clients.iter().position(|(other, _)| *other == client);
        let turns = own.map_or(0, |at| self.clients[at].1.len());
        let of = |(at, (_, items)): (usize, &(Client, VecDeque<T>))| match own {
            Some(own) if at == own => turns,
            // Whose turn comes first has one more before it.
            Some(own) if at < own => items.len().min(turns + 1),
            Some(_) => items.len().min(turns),
            None => 1,
        };
        self.clients.iter().enumerate().map(of).sum()
    }

    pub fn pop(&mut self) -> Option<T> {
        let (client, mut items) = self.clients.pop_front()?;
        let item = items.pop_front();
        if !items.is_empty() {
            self.clients.push_back((client, items));
        }
        item
    }

    /// Takes out those that nobody wants any more, and says how many.
    pub fn retain(&mut self, wanted: impl Fn(&T) -> bool) -> usize {
        let before = self.len();
        for (_, items) in &mut self.clients {
            items.retain(&wanted);
        }
        self.clients.retain(|(_, items)| !items.is_empty());
        before - self.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_take_turns() {
        let mut line = Line::new();
        for item in ["a1", "a2", "a3", "b1", "c1", "b2"] {
            line.push([item.as_bytes()[0]; 32], item);
        }
        assert_eq!(line.retain(|item| *item != "a2"), 1);
        let order: Vec<&str> = std::iter::from_fn(|| line.pop()).collect();
        assert_eq!(order, ["a1", "b1", "c1", "a3", "b2"]);
        assert_eq!(line.len(), 0);
    }

    /// As many as do come before it.
    #[test]
    fn a_place_in_the_line() {
        for clients in ["", "a", "aaab", "abbbc", "bbacca", "abcabcaab", "cccab", "baaaa"] {
            for own in *b"abcd" {
                let mut line = Line::new();
                clients.bytes().for_each(|client| line.push([client; 32], "another"));
                let before = line.before([own; 32]);
                line.push([own; 32], "its own");
                let come = std::iter::from_fn(|| line.pop()).take_while(|item| *item != "its own");
                assert_eq!(before, come.count(), "{clients} {own}");
            }
        }
    }
}
