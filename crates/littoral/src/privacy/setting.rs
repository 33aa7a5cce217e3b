//! A mechanism as flags describe it, without its noise: what `epsilon` and `calibrate` share.

use super::number::plain;
use crate::output::Failure;
use clap::ValueEnum;
use littoral_privacy::account::distributed::{Noise, Plan, PlanError, Release};
use littoral_privacy::account::{
    AccountError, Accountant, Adjacency, Composition, Discretisation, Loss, Mechanism, Method, Sampling,
};
use serde_json::{Value, json};

#[derive(clap::Args, Debug)]
pub struct Setting {
    /// The noise: Gaussian, Laplace, discrete Gaussian or Skellam on a value of sensitivity 1, or shares of the latter two
    /// that the devices of a masked sum add.
    #[arg(long)]
    mechanism: Option<Kind>,
    /// How often it ran.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    steps: u64,
    /// The delta for which epsilon holds; from 1e-15.
    #[arg(long, default_value_t = 1e-5, value_parser = delta)]
    pub delta: f64,
    /// The share of records that take part in a step, drawn in secret.
    #[arg(long, default_value_t = 1.0, value_parser = rate)]
    sampling_rate: f64,
    /// poisson: each record by itself, with that probability. fixed: a set of fixed size; it is accounted under replacing one
    /// record, which covers adding or removing one, for a sensitivity of replacing.
    #[arg(long, default_value = "poisson")]
    sampling: Draw,
    /// Rényi divergence or privacy loss distributions; pld by default; rdp for distributed mechanisms, of which those with Skellam noise have
    /// no pld.
    #[arg(long)]
    accountant: Option<By>,
    /// Which data sets shall not be told apart. The noise multiplier is over the sensitivity of this.
    #[arg(long, default_value = "add-remove")]
    adjacency: Neighbours,
    /// How losses of discrete noise come onto the grid of a pld. up: rounded up, as Google's dp-accounting does. dots:
    /// between two points, as valid and much tighter over many steps.
    #[arg(long, default_value = "up")]
    discretisation: Grid,
    #[command(flatten)]
    shares: Shares,
}

/// A sum over devices that add the noise; for distributed mechanisms only.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Distributed mechanisms")]
struct Shares {
    /// Devices in a cohort.
    #[arg(long)]
    clients: Option<u32>,
    /// No sum of fewer devices is opened; by default all clients.
    #[arg(long)]
    min_survivors: Option<u32>,
    /// Devices among them that tell their noise; none by default.
    #[arg(long)]
    colluding: Option<u32>,
    /// Coordinates of an update.
    #[arg(long)]
    dim: Option<u64>,
    /// The L2 norm that an update is clipped to; 1 by default.
    #[arg(long)]
    clip: Option<f64>,
    /// Sums are taken modulo 2^bits; 20 by default.
    #[arg(long)]
    bits: Option<u32>,
    /// The share of roundings that are drawn again; e^-1/2 by default.
    #[arg(long)]
    rounding_beta: Option<f64>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq)]
enum Kind {
    Gaussian,
    Laplace,
    DiscreteGaussian,
    Skellam,
    DistributedDiscreteGaussian,
    DistributedSkellam,
}

impl Kind {
    /// As on the command line.
    fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
    }
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq)]
enum Draw {
    Poisson,
    Fixed,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum By {
    Rdp,
    Pld,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq)]
enum Neighbours {
    AddRemove,
    ReplaceOne,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Grid {
    Up,
    Dots,
}

/// Why there is no epsilon.
pub enum Refused {
    Account(AccountError),
    Plan(PlanError),
}

impl Setting {
    /// The flags belong together.
    pub fn check(&self) -> Result<(), Failure> {
        if self.mechanism.is_none() {
            return Err(Failure::usage("--mechanism", "this argument", "none"));
        }
        let shares = &self.shares;
        let given = [
            ("--clients", shares.clients.is_some()),
            ("--min-survivors", shares.min_survivors.is_some()),
            ("--colluding", shares.colluding.is_some()),
            ("--dim", shares.dim.is_some()),
            ("--clip", shares.clip.is_some()),
            ("--bits", shares.bits.is_some()),
            ("--rounding-beta", shares.rounding_beta.is_some()),
        ];
        match (self.noise(), given.iter().find(|(_, given)| *given)) {
            (None, Some((flag, _))) => {
                return Err(Failure::usage(*flag, "a distributed mechanism with it", self.kind().name()));
            }
            (Some(_), _) if shares.clients.is_none() => {
                return Err(Failure::usage("--clients", "this argument", "none"));
            }
            (Some(_), _) if shares.dim.is_none() => return Err(Failure::usage("--dim", "this argument", "none")),
            _ => {}
        }
        if self.noise() == Some(Noise::Skellam) && matches!(self.accountant, Some(By::Pld)) {
            return Err(Failure::usage("--accountant", "rdp, the only one for distributed Skellam noise", "pld"));
        }
        if self.adjacency == Neighbours::ReplaceOne && self.sampling == Draw::Poisson && self.sampling_rate < 1.0 {
            let expected = "add-remove with poisson sampling, or --sampling fixed";
            return Err(Failure::usage("--adjacency", expected, "replace-one"));
        }
        Ok(())
    }

    /// After [`Setting::check`].
    fn kind(&self) -> Kind {
        self.mechanism.unwrap_or(Kind::Gaussian)
    }

    fn noise(&self) -> Option<Noise> {
        match self.kind() {
            Kind::DistributedDiscreteGaussian => Some(Noise::DiscreteGaussian),
            Kind::DistributedSkellam => Some(Noise::Skellam),
            _ => None,
        }
    }

    /// The round of a distributed mechanism with this noise.
    pub fn release(&self, noise_multiplier: f64) -> Option<Result<Release, PlanError>> {
        let clients = self.shares.clients.unwrap_or(1);
        let plan = Plan {
            noise: self.noise()?,
            clients,
            min_survivors: self.shares.min_survivors.unwrap_or(clients),
            colluding: self.shares.colluding.unwrap_or(0),
            dim: self.shares.dim.unwrap_or(1),
            clip: self.shares.clip.unwrap_or(1.0),
            bits: self.shares.bits.unwrap_or(20),
            rounding_beta: self.shares.rounding_beta.unwrap_or((-0.5f64).exp()),
            noise_multiplier,
            vectors_changed: if self.adjacency == Neighbours::ReplaceOne { 2 } else { 1 },
        };
        Some(plan.release())
    }

    /// A finite one.
    pub fn epsilon(&self, noise_multiplier: f64) -> Result<f64, Refused> {
        let z = noise_multiplier;
        let mechanism = match self.kind() {
            Kind::Gaussian => Mechanism::Gaussian { noise_multiplier: z },
            // The deviation of Laplace noise is √2 times its scale.
            Kind::Laplace => Mechanism::Laplace { scale: z / std::f64::consts::SQRT_2 },
            Kind::DiscreteGaussian => Mechanism::DiscreteGaussian { sigma: z, sensitivity: 1 },
            Kind::Skellam => Mechanism::Skellam { variance: z * z, sensitivity: 1 },
            Kind::DistributedDiscreteGaussian | Kind::DistributedSkellam => match self.release(z) {
                Some(release) => Mechanism::Distributed(release.map_err(Refused::Plan)?),
                None => Mechanism::Outcomes(Vec::new()),
            },
        };
        let rate = self.sampling_rate;
        let sampling = match self.sampling {
            Draw::Poisson => Sampling::Poisson { rate },
            Draw::Fixed => Sampling::Fixed { rate },
        };
        let mut releases = Composition::new();
        releases.add(Loss { mechanism, sampling, count: self.steps }).map_err(Refused::Account)?;
        let epsilon = releases.epsilon(self.delta, self.method()).map_err(Refused::Account)?;
        let finite = Some(epsilon).filter(|epsilon| epsilon.is_finite());
        finite.ok_or(Refused::Account(AccountError::NoEpsilon { delta: self.delta }))
    }

    fn method(&self) -> Method {
        let accountant = match (self.accountant, self.noise()) {
            (Some(By::Rdp), _) | (None, Some(_)) => Accountant::Rdp,
            (Some(By::Pld), _) | (None, None) => Accountant::Pld,
        };
        let adjacency = match self.adjacency {
            Neighbours::AddRemove => Adjacency::AddRemove,
            Neighbours::ReplaceOne => Adjacency::ReplaceOne,
        };
        let discrete = match self.discretisation {
            Grid::Up => Discretisation::Up,
            Grid::Dots => Discretisation::Dots,
        };
        Method { accountant, adjacency, discrete }
    }

    /// What the noise of a distributed mechanism means in the ring.
    pub fn derived(&self, noise_multiplier: f64) -> Option<Derived> {
        self.release(noise_multiplier)?.ok().map(Derived)
    }
}

pub struct Derived(Release);

impl Derived {
    pub fn add_to(&self, object: &mut Value) {
        let release = &self.0;
        object["scale"] = json!(release.scale);
        object["l2_sensitivity"] = json!(release.l2);
        object["l1_sensitivity"] = json!(release.l1);
        object["share_variance"] = json!([release.share_variance.numerator(), release.share_variance.denominator()]);
        object["share_sigma"] = json!(release.share_variance.to_f64().sqrt());
        object["honest_shares"] = json!(release.honest);
    }

    pub fn line(&self) -> String {
        let release = &self.0;
        format!(
            "scale {:.6}, L2 sensitivity {:.3} in the ring, each device adds noise of sigma {:.3}; {} honest shares are counted",
            release.scale,
            release.l2,
            release.share_variance.to_f64().sqrt(),
            release.honest
        )
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        let what = "no account";
        match refused {
            Refused::Plan(e) if e.what.contains(' ') => Failure::new(what, e.what, e.expected, plain(e.got)),
            Refused::Plan(e) => Failure::usage(format!("--{}", e.what), e.expected, plain(e.got)),
            Refused::Account(AccountError::Range { what: place, expected, got }) => {
                Failure::new(what, place, expected, plain(got))
            }
            Refused::Account(AccountError::Impossible { what: place, expected, got }) => {
                Failure::new(what, place, expected, got)
            }
            Refused::Account(AccountError::NoEpsilon { delta }) => {
                Failure::new(what, "epsilon", format!("a finite one for delta {}", plain(delta)), "infinity")
                    .hint("more noise, fewer steps or a larger delta")
            }
            Refused::Account(AccountError::Unreachable { target, least, most, reached }) => {
                let expected =
                    format!("{} with a noise multiplier from {} to {}", plain(target), plain(least), plain(most));
                Failure::new("no noise is enough", "--epsilon", expected, format!("{} at best", plain(reached)))
            }
        }
    }
}

pub fn above_zero(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "a number above 0".into())
}

fn rate(text: &str) -> Result<f64, String> {
    above_zero(text).ok().filter(|rate| *rate <= 1.0).ok_or_else(|| "a number above 0 and at most 1".into())
}

pub fn delta(text: &str) -> Result<f64, String> {
    let good = above_zero(text).ok().filter(|delta| (1e-15..1.0).contains(delta));
    good.ok_or_else(|| "a number from 1e-15 to below 1".into())
}
