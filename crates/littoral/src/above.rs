//! `littoral serve --upstream`: who else may answer, what decides, and what must not leave.

use crate::input;
use crate::output::Failure;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use littoral_infer::route::budget::Budget;
use littoral_infer::route::calibrate::Calibration;
use littoral_infer::route::decide::Prices;
use littoral_infer::route::drift::Watch;
use littoral_infer::route::features::When;
use littoral_infer::route::routing::Routing;
use littoral_infer::route::rule::{Policy, PolicyText};
use littoral_infer::route::saved::{SAVED_BYTES_MAX, Saved};
use littoral_infer::speculate::drafter::Sources;
use littoral_node::host::keys;
use littoral_node::serve::{self, Upstream, UpstreamError, secret_file};
use littoral_node::transport::Address;
use littoral_wire::speculation::ROUND_TOKENS_MAX;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

const POLICY_BYTES_MAX: u64 = 1 << 20;
/// A watch has the scores of its calibration and of a block.
const WATCH_BYTES_MAX: u64 = 1 << 20;
/// Requests on which a share is looked back.
const WINDOW: usize = 200;

#[derive(clap::Args, Debug)]
pub struct AboveArgs {
    /// Who has a larger model: a machine of yours, as its `serve --verify` prints it, which verifies what this one drafts; or
    /// the URL of any server of OpenAI's API, with its /v1. While it cannot be reached this machine answers by itself. Machines
    /// of yours with the same model may be several, the nearest first: if one is lost in an answer the next goes on.
    #[arg(long, value_name = "[NAME=]KEY@HOST:PORT|URL")]
    pub upstream: Vec<Above>,
    /// What this machine is called in x-littoral-by.
    #[arg(long, value_name = "NAME", default_value = "here")]
    tier: String,
    /// What the server at a URL calls its model; without it, the first of its list.
    #[arg(long, value_name = "NAME", requires = "upstream")]
    upstream_model: Option<String>,
    /// The key for the server at a URL, in a file that only its owner can read.
    #[arg(long, value_name = "FILE", requires = "upstream")]
    upstream_key_file: Option<PathBuf>,
    /// Ask a URL of another machine without TLS: others on the way can read it.
    #[arg(long, requires = "upstream")]
    upstream_plain: bool,
    /// The server at a URL is given up when it says nothing for so long (`45s`), and longer for a long prompt; a whole answer may take
    /// ten times as long.
    #[arg(long, value_name = "TIME", requires = "upstream", default_value = "30s", value_parser = timeout)]
    upstream_timeout: Duration,
    /// Whether this machine drafts greedy answers for the server at a URL, if that tells the log-probabilities of prompts: `auto`,
    /// as many tokens as pay by what is measured; a number, always so many; `off`.
    #[arg(long, value_name = "TOKENS", default_value = "auto", requires = "upstream")]
    upstream_drafts: Drafts,
    /// What drafts for whoever is above: this machine's `model`, `lookup`, what followed in the text when the same words stood there
    /// before, or `both`, whichever promises more at each token.
    #[arg(long, value_name = "SOURCE", default_value = "both", requires = "upstream", value_parser = sources())]
    upstream_draft_source: Sources,
    /// What decides who answers, as `littoral route calibrate` wrote it; without it the larger model answers all that may
    /// leave.
    #[arg(long, value_name = "FILE", requires = "upstream")]
    router: Option<PathBuf>,
    /// When the router looks: `before`, at the prompt and the first token; `after`, at this machine's whole answer.
    #[arg(long, value_name = "WHEN", default_value = "after", requires = "router", value_parser = when())]
    router_when: When,
    /// The share of requests that may go to the larger model, 0 to 1: the least sure ones.
    #[arg(long, value_name = "SHARE", requires = "router")]
    upstream_share: Option<f64>,
    /// Of the answers that are kept for their score, this share, 0 to 1, is asked of the larger model too: whether they are still as good
    /// as when the router was calibrated.
    #[arg(long, value_name = "SHARE", requires = "router", default_value_t = 0.02, value_parser = share)]
    router_audit: f64,
    /// What a token costs that this machine writes, in any unit; what counts is how the three prices compare. An answer is this
    /// machine's or the larger model's by its score, but where the larger model's costs less, all that may leave goes there.
    #[arg(long, value_name = "COST", requires = "upstream", default_value_t = 0.0, value_parser = price)]
    price: f64,
    /// What a token costs that the larger model writes alone.
    #[arg(long, value_name = "COST", requires = "upstream", default_value_t = 1.0, value_parser = price)]
    upstream_price: f64,
    /// What a token of the larger model costs where this machine drafts; by default as much. If it costs less it is always drafted,
    /// if more never; if as much, where that is faster.
    #[arg(long, value_name = "COST", requires = "upstream", value_parser = price)]
    drafted_price: Option<f64>,
    /// What this machine may keep goes to the model above all the same if it would wait longer than so long for a place here.
    #[arg(long, value_name = "TIME", requires = "upstream", default_value = "10s", value_parser = input::duration_ms)]
    router_wait: u64,
    /// What must not leave this machine: a TOML file with `words` and `keys`, lists of patterns.
    #[arg(long, value_name = "FILE")]
    local_only: Option<PathBuf>,
}

/// Drafts for a server at a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drafts {
    Auto,
    Off,
    Rounds(usize),
}

impl FromStr for Drafts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Self::Auto),
            ("off", _) => Ok(Self::Off),
            (_, Ok(tokens @ 1..=ROUND_TOKENS_MAX)) => Ok(Self::Rounds(tokens)),
            _ => Err(format!("auto, off or 1 to {ROUND_TOKENS_MAX} expected")),
        }
    }
}

/// Who is above, and what people call it.
#[derive(Clone, Debug)]
pub struct Above {
    name: Option<String>,
    who: Who,
}

#[derive(Clone, Debug)]
enum Who {
    /// A machine of ours.
    Machine(Address),
    /// A server of OpenAI's API.
    Server(String),
}

impl Who {
    fn server(&self) -> Option<&str> {
        match self {
            Self::Machine(_) => None,
            Self::Server(url) => Some(url),
        }
    }
}

impl FromStr for Above {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = text.split_once('=').filter(|(name, _)| is_name(name));
        let (name, who) = named.map_or((None, text), |(name, who)| (Some(name.to_owned()), who));
        let who = match who.contains("://") {
            true => Who::Server(who.to_owned()),
            false => Who::Machine(who.parse().map_err(|e: littoral_node::transport::TransportError| e.to_string())?),
        };
        Ok(Self { name, who })
    }
}

fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = Duration::from_millis(input::duration_ms(text)?);
    let fits = (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&timeout);
    fits.then_some(timeout).ok_or_else(|| "100ms to 1h expected".into())
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "a number of 0 to 1 expected".into())
}

fn price(text: &str) -> Result<f64, String> {
    let price = text.parse().ok().filter(|price| (0.0..=1e12).contains(price));
    price.ok_or_else(|| "a number of 0 to 1e12 expected".into())
}

pub fn sources() -> impl TypedValueParser<Value = Sources> {
    let of = |name: String| match name.as_str() {
        "model" => Sources::Model,
        "lookup" => Sources::Lookup,
        _ => Sources::Both,
    };
    PossibleValuesParser::new(["both", "model", "lookup"]).map(of)
}

pub fn when() -> impl TypedValueParser<Value = When> {
    let of = |name: String| if name == "before" { When::Before } else { When::After };
    PossibleValuesParser::new(["before", "after"]).map(of)
}

impl AboveArgs {
    /// The machines of ours.
    pub fn machines(&self) -> Vec<Address> {
        let machine = |above: &Above| match &above.who {
            Who::Machine(address) => Some(address.clone()),
            Who::Server(_) => None,
        };
        self.upstream.iter().filter_map(machine).collect()
    }

    pub fn drafts(&self) -> Drafts {
        self.upstream_drafts
    }

    /// What drafts for whoever is above.
    pub fn sources(&self) -> Sources {
        self.upstream_draft_source
    }

    /// `model`: the file of the model here, whose answers a router was calibrated for.
    pub fn above(&self, model: &Path) -> Result<serve::Above, Failure> {
        let policy = self.local_only.as_deref().map(policy).transpose()?.unwrap_or_default();
        let servers: Vec<&str> = self.upstream.iter().filter_map(|above| above.who.server()).collect();
        let upstream = match servers[..] {
            [] if self.upstream_model.is_some() || self.upstream_key_file.is_some() => {
                let got = "a machine of yours, which has one model and knows this machine's key";
                return Err(Failure::usage("--upstream-model and --upstream-key-file", "a URL as --upstream", got));
            }
            [] if self.upstream_drafts != Drafts::Auto && !self.upstream.is_empty() => {
                let got = "a machine of yours, for which as many are drafted as pay by what is measured";
                return Err(Failure::usage("--upstream-drafts", "a URL as --upstream", got));
            }
            [] => None,
            [url] if self.upstream.len() == 1 => Some(Arc::new(self.server(url)?)),
            _ => return Err(Failure::usage("--upstream", "one URL, or machines of yours", "a URL beside others")),
        };
        if !is_name(&self.tier) {
            let expected = "a name of up to 32 letters, digits, `-`, `_` and `.`";
            return Err(Failure::usage("--tier", expected, format!("`{}`", self.tier)));
        }
        let named = |(at, above): (usize, &Above)| match (&above.name, at) {
            (Some(name), _) => name.clone(),
            (None, 0) => "upstream".into(),
            (None, at) => format!("upstream-{}", at + 1),
        };
        let above: Vec<String> = self.upstream.iter().enumerate().map(named).collect();
        let names: Vec<&String> = std::iter::once(&self.tier).chain(&above).collect();
        if let Some((_, twice)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            return Err(Failure::usage("--tier and --upstream NAME=", "a name of its own for each machine", twice)
                .hint("answers tell by it who wrote what: --tier edge --upstream cloud=KEY@HOST:PORT"));
        }
        let names = serve::Names { here: self.tier.clone(), above };
        let cloud = self.upstream_price;
        let prices = Prices { edge: self.price, drafted: self.drafted_price.unwrap_or(cloud), cloud };
        let Some(path) = &self.router else {
            let routing = Routing::new(None, None, None, prices).waiting_at_most(self.router_wait as f64);
            return Ok(serve::Above { policy, routing, upstream, names, ..serve::Above::default() });
        };
        let saved = router(path, model)?;
        let budget = self.upstream_share.map(|share| Budget::new(share, WINDOW)).transpose();
        let budget = budget.map_err(|e| Failure::usage("--upstream-share", "0 to 1", e))?;
        let scores = saved.router(self.router_when).calibration.as_ref().map(|known| &known.scores[..]);
        let budget = budget.map(|budget| budget.after(scores.unwrap_or_default()));
        let kept = path.with_extension("watch.json");
        let router = saved.router(self.router_when).clone();
        let watch = watch(&kept, router.calibration.as_ref())?;
        if let (None, None, Some(why)) = (&router.calibration, &budget, &router.nothing) {
            return Err(Failure::new(
                "nothing is served",
                path.display().to_string(),
                "a router that decides something",
                why,
            )
            .hint(
                "give --upstream-share, or calibrate with more examples; the other --router-when may have a promise, and unless \
                 `route calibrate --when` said otherwise it is no weaker for being chosen now",
            ));
        }
        let large = blake3::Hash::from_hex(&saved.large.blake3);
        let large = large
            .map_err(|e| Failure::new("the router was not read", path.display().to_string(), "`large.blake3`", e))?;
        let routing = Routing::new(Some(router), watch, budget, prices).of_model(*large.as_bytes());
        let routing = routing.waiting_at_most(self.router_wait as f64);
        let audited = if saved.exact_answers { 0.0 } else { self.router_audit };
        let routing = routing.auditing(u64::from_le_bytes(keys::random()?), audited);
        Ok(serve::Above { policy, routing, upstream, watch: Some(kept), names, ..serve::Above::default() })
    }

    fn server(&self, url: &str) -> Result<Upstream, Failure> {
        let key = self.upstream_key_file.as_deref().map(secret_file).transpose()?;
        let key = key.as_deref().map(str::trim);
        Upstream::new(url, self.upstream_model.clone(), key, self.upstream_plain, self.upstream_timeout).map_err(|e| {
            let hint = match &e {
                UpstreamError::Plain { .. } => "--upstream-plain asks another machine over http all the same",
                _ => "a key for it stands in a file: --upstream-key-file",
            };
            Failure::new("nothing is served", "--upstream", "the URL of a server, its key in a file", e).hint(hint)
        })
    }
}

fn policy(path: &Path) -> Result<Policy, Failure> {
    let wrong = |e: &dyn std::fmt::Display| {
        let expected = "`words` and `keys`, lists of patterns";
        Failure::new("the policy was not read", path.display().to_string(), expected, e)
    };
    let text = input::text(path, POLICY_BYTES_MAX)?;
    let text: PolicyText = toml::from_str(&text).map_err(|e| wrong(&e.message()))?;
    Policy::new(&text).map_err(|e| wrong(&e))
}

fn router(path: &Path, model: &Path) -> Result<Saved, Failure> {
    let wrong = |expected: &str, got: &dyn std::fmt::Display| {
        Failure::new("the router was not read", path.display().to_string(), expected, got)
    };
    let text = input::text(path, SAVED_BYTES_MAX)?;
    let saved = Saved::parse(&text).map_err(|e| wrong("a file of `littoral route calibrate`", &e))?;
    let here = blake3::Hash::from_bytes(crate::llm::digest(model)?).to_hex();
    if saved.small.blake3 != here.as_str() {
        let got = format!(
            "one for {} ({:.16}…), and {} is {here:.16}…",
            saved.small.name,
            saved.small.blake3,
            model.display()
        );
        return Err(wrong("a calibration for the model that is served", &got));
    }
    Ok(saved)
}

/// As an earlier run left it over this calibration. One that cannot be read, or that no server wrote, is a reason to stop: with it a
/// promise may have been taken back.
fn watch(path: &Path, calibration: Option<&Calibration>) -> Result<Option<Watch>, Failure> {
    if !path.exists() {
        return Ok(None);
    }
    let wrong = |expected: &str, got: &dyn std::fmt::Display| {
        Failure::new("the router's watch was not read", path.display().to_string(), expected, got)
            .hint("a new calibration needs none: remove the file then")
    };
    let text = input::text(path, WATCH_BYTES_MAX)?;
    let watch: Watch = serde_json::from_str(&text).map_err(|e| wrong("as a server wrote it", &e))?;
    // Of another calibration it says nothing; this one begins with a new watch.
    let Some(calibration) = calibration.filter(|calibration| watch.is_of(calibration)) else { return Ok(None) };
    watch.check(calibration).map_err(|e| wrong("a watch over this calibration", &e))?;
    Ok(Some(watch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_infer::route::calibrate::{Labelled, calibrate};
    use littoral_infer::route::drift::Watching;

    #[test]
    fn a_watch_that_no_server_wrote_is_refused() {
        let calibration = |worse: u32| {
            let one = |at: u32| Labelled { score: f64::from(at) / 200.0, worse: at < worse };
            calibrate(&(0..200).map(one).collect::<Vec<_>>(), &[0.5], 0.1, 0.1).expect("a promise")
        };
        let (own, mut other) = (calibration(10), calibration(10));
        other.scores[0] += 0.001;
        let path = std::env::temp_dir().join(format!("littoral-above-{}.watch.json", std::process::id()));
        let of = |text: &str, calibration| {
            std::fs::write(&path, text).expect("a file");
            watch(&path, calibration).map_err(|failure| failure.to_string())
        };
        let mut written = Watch::new(&own, Watching::default());
        written.saw(0.5);
        let text = serde_json::to_string(&written).expect("JSON");
        assert_eq!(of(&text, Some(&own)), Ok(Some(written)));
        // A new calibration has a new watch.
        assert_eq!([of(&text, Some(&other)), of(&text, None)], [Ok(None), Ok(None)]);
        // One that would never look again.
        let never = text.replace("\"block\":200", "\"block\":1000000");
        assert_ne!(never, text);
        let refused = of(&never, Some(&own)).expect_err("no watch");
        assert!(refused.contains("the watch, block: 1 to 1024 scores expected, got 1000000"), "{refused}");
        assert!(of("{", Some(&own)).is_err());
        std::fs::remove_file(&path).expect("its end");
    }
}
