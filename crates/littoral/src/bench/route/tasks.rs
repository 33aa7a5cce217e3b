//! Prompts whose answers are known exactly, drawn from a seed: arithmetic, strings, code, JSON, lists, each at a difficulty
//! that is drawn too. All have one short answer, so that one look tells who is right.

use littoral_infer::sample::Noise;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub kind: &'static str,
    pub prompt: String,
    pub answer: String,
}

/// The first `count` tasks of a seed; a greater count begins with the same ones. They are independent draws of one law, so any
/// split of them by chance has exchangeable parts.
pub fn tasks(seed: u64, count: usize) -> Vec<Task> {
    (0..count as u64).map(|at| draw(&mut Chance { noise: Noise::new(seed, at), next: 0 })).collect()
}

struct Chance {
    noise: Noise,
    next: u32,
}

impl Chance {
    /// 0 up to `end`, without it.
    fn below(&mut self, end: u64) -> u64 {
        self.next += 1;
        // Below 2^53 the product is less than `end`.
        (self.noise.uniform(self.next) * end as f64) as u64
    }

    fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len() as u64) as usize]
    }

    /// A number of that many digits.
    fn number(&mut self, digits: u64) -> u64 {
        let low = if digits <= 1 { 1 } else { 10u64.pow(digits as u32 - 1) };
        self.within(low, 10u64.pow(digits as u32) - 1)
    }

    fn numbers(&mut self, count: u64, below: u64) -> Vec<u64> {
        (0..count).map(|_| self.below(below)).collect()
    }

    fn letters(&mut self, count: u64) -> String {
        (0..count).map(|_| char::from(b'a' + self.below(26) as u8)).collect()
    }

    fn word(&mut self) -> &'static str {
        self.one(&WORDS)
    }
}

const WORDS: [&str; 24] = [
    "river", "harbour", "stone", "window", "lantern", "meadow", "copper", "island", "garden", "mirror", "bridge",
    "forest", "silver", "thunder", "blanket", "pepper", "rocket", "castle", "needle", "orange", "tunnel", "violin",
    "marble", "banana",
];

type Maker = fn(&mut Chance) -> (String, String);

const KINDS: [(&str, Maker); 14] = [
    ("add", add),
    ("multiply", multiply),
    ("precedence", precedence),
    ("remainder", remainder),
    ("reverse", reverse),
    ("count letters", count_letters),
    ("nth letter", nth_letter),
    ("capitals", capitals),
    ("sort", sort),
    ("greatest", greatest),
    ("python list", python_list),
    ("python loop", python_loop),
    ("json", json),
    ("words", words),
];

fn draw(chance: &mut Chance) -> Task {
    let (kind, make) = KINDS[chance.below(KINDS.len() as u64) as usize];
    let (question, answer) = make(chance);
    Task { kind, prompt: format!("{question}\nAnswer with the result only."), answer }
}

fn add(chance: &mut Chance) -> (String, String) {
    let digits = chance.within(1, 6);
    let (a, b) = (chance.number(digits), chance.number(digits));
    if a > b && chance.below(2) == 0 {
        return (format!("What is {a} - {b}?"), (a - b).to_string());
    }
    (format!("What is {a} + {b}?"), (a + b).to_string())
}

fn multiply(chance: &mut Chance) -> (String, String) {
    let (a, b) = (chance.within(1, 3), chance.within(1, 2));
    let (a, b) = (chance.number(a), chance.number(b));
    (format!("What is {a} * {b}?"), (a * b).to_string())
}

fn precedence(chance: &mut Chance) -> (String, String) {
    let [a, b, c, d] = std::array::from_fn(|_| chance.within(2, 12));
    match chance.below(3) {
        0 => (format!("What is {a} + {b} * {c}?"), (a + b * c).to_string()),
        1 => (format!("What is ({a} + {b}) * {c}?"), ((a + b) * c).to_string()),
        _ => (format!("What is {a} * {b} + {c} * {d}?"), (a * b + c * d).to_string()),
    }
}

fn remainder(chance: &mut Chance) -> (String, String) {
    let digits = chance.within(1, 3);
    let (a, b) = (chance.number(digits), chance.within(2, 9));
    (format!("What is {a} % {b} in Python?"), (a % b).to_string())
}

fn reverse(chance: &mut Chance) -> (String, String) {
    let text = match chance.below(2) {
        0 => chance.word().to_owned(),
        _ => {
            let length = chance.within(2, 6);
            chance.letters(length)
        }
    };
    (format!("Write the text \"{text}\" backwards."), text.chars().rev().collect())
}

fn count_letters(chance: &mut Chance) -> (String, String) {
    let word = chance.word();
    let letter = char::from(word.as_bytes()[chance.below(word.len() as u64) as usize]);
    let count = word.chars().filter(|c| *c == letter).count();
    (format!("How many times does the letter \"{letter}\" occur in \"{word}\"?"), count.to_string())
}

fn nth_letter(chance: &mut Chance) -> (String, String) {
    let word = chance.word();
    let at = chance.below(word.len() as u64) as usize;
    (format!("In Python, what is \"{word}\"[{at}]?"), word[at..=at].to_owned())
}

fn capitals(chance: &mut Chance) -> (String, String) {
    let word = chance.word();
    match chance.below(3) {
        0 => (format!("Write \"{word}\" in capital letters."), word.to_uppercase()),
        1 => (format!("In Python, what is len(\"{word}\")?"), word.len().to_string()),
        _ => {
            let end = chance.within(1, 4) as usize;
            (format!("In Python, what is \"{word}\"[:{end}]?"), word[..end].to_owned())
        }
    }
}

fn listed(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

fn sort(chance: &mut Chance) -> (String, String) {
    let count = chance.within(3, 8);
    let below = chance.one(&[&10, &100, &1000]);
    let mut numbers = chance.numbers(count, *below);
    let question = format!("Sort from smallest to greatest, separated by commas: {}", listed(&numbers));
    numbers.sort_unstable();
    (question, listed(&numbers))
}

fn greatest(chance: &mut Chance) -> (String, String) {
    let count = chance.within(3, 12);
    let numbers = chance.numbers(count, 1000);
    let (least, most) = (numbers.iter().min(), numbers.iter().max());
    let (what, answer) = if chance.below(2) == 0 { ("smallest", least) } else { ("greatest", most) };
    (format!("Which is the {what} of these numbers: {}?", listed(&numbers)), answer.map_or(0, |n| *n).to_string())
}

fn python_list(chance: &mut Chance) -> (String, String) {
    let count = chance.within(3, 6);
    let numbers = chance.numbers(count, 20);
    let (code, answer) = match chance.below(5) {
        0 => (format!("sum([{}])", listed(&numbers)), numbers.iter().sum::<u64>()),
        1 => (format!("len([{}])", listed(&numbers)), count),
        2 => (format!("[{}][-1]", listed(&numbers)), numbers[numbers.len() - 1]),
        3 => (format!("max([{}]) - min([{0}])", listed(&numbers)), {
            let (least, most) = numbers.iter().fold((u64::MAX, 0), |(l, m), n| (l.min(*n), m.max(*n)));
            most - least
        }),
        _ => {
            let limit = chance.within(5, 15);
            let code = format!("len([x for x in [{}] if x > {limit}])", listed(&numbers));
            (code, numbers.iter().filter(|n| **n > limit).count() as u64)
        }
    };
    (format!("What does this Python code print?\nprint({code})"), answer.to_string())
}

fn python_loop(chance: &mut Chance) -> (String, String) {
    let (start, turns, step) = (chance.below(10), chance.within(2, 5), chance.within(1, 5));
    let (line, answer) = match chance.below(3) {
        0 => (format!("x += {step}"), start + turns * step),
        1 => ("x += i".to_owned(), start + turns * (turns - 1) / 2),
        _ => (format!("x = x * 2 + {step}"), (0..turns).fold(start, |x, _| x * 2 + step)),
    };
    let code = format!("x = {start}\nfor i in range({turns}):\n    {line}\nprint(x)");
    (format!("What does this Python code print?\n{code}"), answer.to_string())
}

fn json(chance: &mut Chance) -> (String, String) {
    let keys: Vec<String> = (0..chance.within(2, 4)).map(|i| format!("{}{i}", chance.word())).collect();
    let values: Vec<u64> = keys.iter().map(|_| chance.below(1000)).collect();
    let fields: Vec<String> = keys.iter().zip(&values).map(|(key, value)| format!("\"{key}\": {value}")).collect();
    let at = chance.below(keys.len() as u64) as usize;
    let (inner, key) = (format!("{{{}}}", fields.join(", ")), &keys[at]);
    match chance.below(3) {
        0 => (format!("Given the JSON {inner}, what is the value of \"{key}\"?"), values[at].to_string()),
        1 => {
            let list = chance.numbers(4, 100);
            let place = chance.below(4) as usize;
            let text = format!("{{\"a\": {inner}, \"b\": [{}]}}", listed(&list));
            (format!("Given the JSON d = {text}, what is d[\"b\"][{place}]?"), list[place].to_string())
        }
        _ => (format!("Given the JSON {inner}, which key has the value {}?", values[at]), {
            // The first that has it.
            let first = values.iter().position(|value| *value == values[at]).unwrap_or(at);
            keys[first].clone()
        }),
    }
}

fn words(chance: &mut Chance) -> (String, String) {
    let count = chance.within(3, 7);
    let words: Vec<&str> = (0..count).map(|_| chance.word()).collect();
    match chance.below(3) {
        0 => (format!("How many words are there in \"{}\"?", words.join(" ")), count.to_string()),
        1 => (format!("What is the last word of \"{}\"?", words.join(" ")), words[words.len() - 1].to_owned()),
        _ => {
            let first = words.iter().min().copied().unwrap_or_default();
            (format!("Which of these words comes first in the alphabet: {}?", words.join(", ")), first.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn tasks_are_a_function_of_the_seed_and_grow_at_the_end() {
        let some = tasks(7, 400);
        assert_eq!(tasks(7, 500)[..400], some);
        assert_ne!(tasks(8, 400), some);
        let kinds: BTreeSet<&str> = some.iter().map(|task| task.kind).collect();
        assert_eq!(kinds.len(), KINDS.len());
        assert!(some.iter().all(|task| !task.answer.is_empty() && task.answer.len() < 40), "short answers");
    }

    /// Worked by hand from the text of the prompt, not from the generator.
    #[test]
    fn answers_are_right() {
        for task in tasks(3, 2000) {
            let question = task.prompt.lines().next().unwrap_or_default();
            let parse = |text: &str| text.trim().parse::<u64>().ok();
            let sum = question.strip_prefix("What is ").and_then(|rest| rest.strip_suffix('?'));
            let expected = match (task.kind, sum) {
                ("add", Some(sum)) => match sum.split_once(" + ") {
                    Some((a, b)) => parse(a).zip(parse(b)).map(|(a, b)| (a + b).to_string()),
                    None => sum
                        .split_once(" - ")
                        .and_then(|(a, b)| parse(a).zip(parse(b)))
                        .map(|(a, b)| (a - b).to_string()),
                },
                ("multiply", Some(product)) => product
                    .split_once(" * ")
                    .and_then(|(a, b)| parse(a).zip(parse(b)))
                    .map(|(a, b)| (a * b).to_string()),
                ("sort", _) => question.split_once(": ").map(|(_, list)| {
                    let mut numbers: Vec<u64> = list.split(", ").filter_map(parse).collect();
                    numbers.sort_unstable();
                    listed(&numbers)
                }),
                _ => continue,
            };
            assert_eq!(expected.as_ref(), Some(&task.answer), "{}", task.prompt);
        }
    }
}
