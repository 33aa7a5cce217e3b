//! Prompts whose answers are known exactly, drawn from a seed: arithmetic, lists, names, CSV and JSON, dates, code, words, each
//! at a difficulty that is drawn too. All have one short answer, so that one look tells who is right.

use littoral_infer::sample::Noise;
use std::collections::BTreeSet;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub kind: &'static str,
    pub prompt: String,
    pub answer: String,
}

/// The first `count` tasks of a seed; a greater count begins with the same ones. No two have the same prompt, so that no half
/// of them knows one of the other half.
pub fn tasks(seed: u64, count: usize) -> Vec<Task> {
    let mut prompts = BTreeSet::new();
    let draws = (0..).map(|at| draw(&mut Chance { noise: Noise::new(seed, at), next: 0 }));
    draws.filter(|task| prompts.insert(task.prompt.clone())).take(count).collect()
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

    /// A number of that many digits.
    fn number(&mut self, digits: u64) -> u64 {
        let low = if digits <= 1 { 1 } else { 10u64.pow(digits as u32 - 1) };
        self.within(low, 10u64.pow(digits as u32) - 1)
    }

    fn numbers(&mut self, count: u64, below: u64) -> Vec<u64> {
        (0..count).map(|_| self.below(below)).collect()
    }

    fn word(&mut self) -> &'static str {
        WORDS[self.below(WORDS.len() as u64) as usize]
    }

    fn words(&mut self, from: u64, to: u64) -> Vec<&'static str> {
        (0..self.within(from, to)).map(|_| self.word()).collect()
    }
}

const WORDS: [&str; 24] = [
    "river", "harbour", "stone", "window", "lantern", "meadow", "copper", "island", "garden", "mirror", "bridge",
    "forest", "silver", "thunder", "blanket", "pepper", "rocket", "castle", "needle", "orange", "tunnel", "violin",
    "marble", "banana",
];

/// The question and its answer.
type Maker = fn(&mut Chance) -> (String, String);

const KINDS: [(&str, Maker); 21] = [
    ("add", add),
    ("multiply", multiply),
    ("sequence", sequence),
    ("greatest", greatest),
    ("sort", sort),
    ("capital letters", capitals),
    ("snake case", snake_case),
    ("hyphens", hyphens),
    ("csv", csv),
    ("json", json),
    ("date", date),
    ("e-mail", email),
    ("host", host),
    ("file ending", file_ending),
    ("first word", first_word),
    ("last word", last_word),
    ("alphabet", alphabet),
    ("python sum", python_sum),
    ("python item", python_item),
    ("python length", python_length),
    ("python loop", python_loop),
];

fn draw(chance: &mut Chance) -> Task {
    let (kind, make) = KINDS[chance.below(KINDS.len() as u64) as usize];
    let (question, answer) = make(chance);
    Task { kind, prompt: format!("{question}\nAnswer with the result only."), answer }
}

fn listed(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

fn add(chance: &mut Chance) -> (String, String) {
    let digits = chance.within(1, 4);
    let (a, b) = (chance.number(digits), chance.number(digits));
    (format!("What is {a} + {b}?"), (a + b).to_string())
}

fn multiply(chance: &mut Chance) -> (String, String) {
    let (a, b) = (chance.within(2, 9), chance.within(2, 99));
    (format!("What is {a} * {b}?"), (a * b).to_string())
}

fn sequence(chance: &mut Chance) -> (String, String) {
    let (start, step, count) = (chance.within(1, 20), chance.within(1, 9), chance.within(3, 5));
    let numbers: Vec<u64> = (0..count).map(|at| start + step * at).collect();
    (format!("Which number comes next: {}?", listed(&numbers)), (start + step * count).to_string())
}

fn greatest(chance: &mut Chance) -> (String, String) {
    let count = chance.within(2, 7);
    let numbers = chance.numbers(count, 1000);
    let most = numbers.iter().fold(0, |most, n| most.max(*n));
    (format!("Which is the greatest of these numbers: {}?", listed(&numbers)), most.to_string())
}

fn sort(chance: &mut Chance) -> (String, String) {
    let count = chance.within(3, 5);
    let mut numbers = chance.numbers(count, 100);
    let question = format!("Sort from smallest to greatest, separated by commas: {}", listed(&numbers));
    numbers.sort_unstable();
    (question, listed(&numbers))
}

fn capitals(chance: &mut Chance) -> (String, String) {
    let words = chance.words(1, 3).join(" ");
    (format!("Write in capital letters: {words}"), words.to_uppercase())
}

fn snake_case(chance: &mut Chance) -> (String, String) {
    let words = chance.words(2, 4);
    let capital = |word: &&str| word[..1].to_uppercase() + &word[1..];
    let name: String = words[1..].iter().map(capital).collect();
    (format!("Write the name {}{name} in snake_case.", words[0]), words.join("_"))
}

fn hyphens(chance: &mut Chance) -> (String, String) {
    let words = chance.words(2, 5);
    (format!("Join these words with hyphens: {}", words.join(", ")), words.join("-"))
}

fn csv(chance: &mut Chance) -> (String, String) {
    const PLACES: [&str; 7] = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh"];
    let words = chance.words(3, 7);
    let at = chance.below(words.len() as u64) as usize;
    (format!("What is the {} value of this line of CSV: {}", PLACES[at], words.join(",")), words[at].to_owned())
}

/// The keys begin with different letters of their own, so that each is there once.
fn json(chance: &mut Chance) -> (String, String) {
    let keys: Vec<String> =
        chance.words(2, 5).iter().zip('a'..).map(|(word, letter)| format!("{letter}_{word}")).collect();
    let values = chance.numbers(keys.len() as u64, 1000);
    let fields: Vec<String> = keys.iter().zip(&values).map(|(key, value)| format!("\"{key}\": {value}")).collect();
    let at = chance.below(keys.len() as u64) as usize;
    let question = format!("Given the JSON {{{}}}, what is the value of \"{}\"?", fields.join(", "), keys[at]);
    (question, values[at].to_string())
}

fn date(chance: &mut Chance) -> (String, String) {
    let (year, month, day) = (chance.within(1950, 2030), chance.within(1, 12), chance.within(1, 28));
    let question = format!("Write the date {year}-{month:02}-{day:02} in the form DD/MM/YYYY.");
    (question, format!("{day:02}/{month:02}/{year}"))
}

fn email(chance: &mut Chance) -> (String, String) {
    let address = format!("{}.{}@{}.org", chance.word(), chance.word(), chance.word());
    (format!("What is the e-mail address in this text: Please write to {address} before Monday."), address)
}

fn host(chance: &mut Chance) -> (String, String) {
    let host = format!("{}.{}.org", chance.word(), chance.word());
    (format!("What is the host name in the URL https://{host}/{}?", chance.word()), host)
}

fn file_ending(chance: &mut Chance) -> (String, String) {
    let ending = ["py", "rs", "txt", "json", "csv", "png"][chance.below(6) as usize];
    let file = format!("{}_{}.{ending}", chance.word(), chance.word());
    (format!("What is the extension of the file {file}, without the dot?"), ending.to_owned())
}

fn first_word(chance: &mut Chance) -> (String, String) {
    let words = chance.words(3, 7);
    (format!("What is the first word of this text: {}", words.join(" ")), words[0].to_owned())
}

fn last_word(chance: &mut Chance) -> (String, String) {
    let words = chance.words(3, 7);
    (format!("What is the last word of this text: {}", words.join(" ")), words[words.len() - 1].to_owned())
}

fn alphabet(chance: &mut Chance) -> (String, String) {
    let words = chance.words(2, 4);
    let first = words.iter().min().copied().unwrap_or_default();
    (format!("Which of these words comes first in alphabetical order: {}?", words.join(", ")), first.to_owned())
}

fn printed(code: &str) -> String {
    format!("What does this Python code print?\n{code}")
}

fn python_sum(chance: &mut Chance) -> (String, String) {
    let count = chance.within(2, 5);
    let numbers = chance.numbers(count, 10);
    (printed(&format!("print(sum([{}]))", listed(&numbers))), numbers.iter().sum::<u64>().to_string())
}

fn python_item(chance: &mut Chance) -> (String, String) {
    let count = chance.within(2, 5);
    let numbers = chance.numbers(count, 50);
    (printed(&format!("print([{}][-1])", listed(&numbers))), numbers[numbers.len() - 1].to_string())
}

fn python_length(chance: &mut Chance) -> (String, String) {
    let count = chance.within(2, 6);
    (printed(&format!("print(len([{}]))", listed(&chance.numbers(count, 50)))), count.to_string())
}

fn python_loop(chance: &mut Chance) -> (String, String) {
    let (start, turns) = (chance.within(2, 9), chance.within(2, 9));
    let code = format!("x = {start}\nfor i in range({turns}):\n    x += 1\nprint(x)");
    (printed(&code), (start + turns).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_a_function_of_the_seed_and_grow_at_the_end() {
        let some = tasks(7, 400);
        assert_eq!(tasks(7, 500)[..400], some);
        assert_ne!(tasks(8, 400), some);
        let kinds: BTreeSet<&str> = some.iter().map(|task| task.kind).collect();
        let prompts: BTreeSet<&str> = some.iter().map(|task| task.prompt.as_str()).collect();
        assert_eq!((kinds.len(), prompts.len()), (KINDS.len(), 400));
        assert!(some.iter().all(|task| !task.answer.is_empty() && task.answer.len() < 50), "short answers");
    }

    /// Read off the prompt, not taken from the generator.
    #[test]
    fn answers_are_right() {
        for task in tasks(3, 2000) {
            let question = task.prompt.rsplit_once('\n').map_or("", |(question, _)| question);
            let numbers: Vec<u64> =
                question.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect();
            let listed = question.split_once(": ").map_or("", |(_, list)| list).trim_end_matches('?');
            let expected = match task.kind {
                "add" | "python sum" => numbers.iter().sum::<u64>().to_string(),
                "python loop" => (numbers[0] + numbers[1]).to_string(),
                "multiply" => numbers.iter().product::<u64>().to_string(),
                "sequence" => (2 * numbers[numbers.len() - 1] - numbers[numbers.len() - 2]).to_string(),
                "greatest" => numbers.iter().max().map(u64::to_string).unwrap_or_default(),
                "python length" => numbers.len().to_string(),
                "capital letters" => listed.to_ascii_uppercase(),
                "hyphens" => listed.replace(", ", "-"),
                "first word" => listed.split(' ').next().unwrap_or_default().to_owned(),
                "last word" => listed.split(' ').next_back().unwrap_or_default().to_owned(),
                "alphabet" => listed.split(", ").min().unwrap_or_default().to_owned(),
                "date" => format!("{:02}/{:02}/{}", numbers[2], numbers[1], numbers[0]),
                _ => continue,
            };
            assert_eq!(expected, task.answer, "{}", task.prompt);
        }
    }
}
