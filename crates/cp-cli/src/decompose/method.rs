//! `--method`: which algorithms there are, which options each takes, and the solvers made of them.

use std::str::FromStr;
use std::sync::Arc;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use cp_core::{
    Als, AlsQr, Auto, DataAwareAls, Delta, Epc, Init, InputStatistics, Nls, NonNegAls, PowerMethod,
    Precompressed, Real, SampledAls, Solver,
};
use cp_plan::Method;

use super::Args;
use crate::common::{Usage, positive};

/// The algorithms for arrays: the solvers that layers are decomposed by, and what there is beside them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// A CP solver of [`Method`].
    Cp(Method),
    /// CP: ALS, then the smallest terms within an error bound.
    Epc,
    /// CP in the metric of a layer's inputs.
    AlsSigma,
    /// Tucker by truncated singular value decompositions.
    Hosvd,
    /// Tucker by orthogonal iteration.
    Hooi,
    /// Tucker in the first two modes.
    Tucker2,
}

impl Algorithm {
    /// All of them, as `--help` lists them.
    const ALL: [Algorithm; 13] = [
        Algorithm::Cp(Method::Als),
        Algorithm::Cp(Method::AlsQr),
        Algorithm::Cp(Method::AlsQrSvd),
        Algorithm::Cp(Method::Nls),
        Algorithm::Cp(Method::Auto),
        Algorithm::Cp(Method::Power),
        Algorithm::Epc,
        Algorithm::Cp(Method::Nonneg),
        Algorithm::Cp(Method::SampledAls),
        Algorithm::AlsSigma,
        Algorithm::Hosvd,
        Algorithm::Hooi,
        Algorithm::Tucker2,
    ];

    /// As [`Solver::name`] has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Algorithm::Cp(method) => method.name(),
            Algorithm::Epc => "epc",
            Algorithm::AlsSigma => "als-sigma",
            Algorithm::Hosvd => "hosvd",
            Algorithm::Hooi => "hooi",
            Algorithm::Tucker2 => "tucker2",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Algorithm::Cp(Method::Als) => "CP: alternating least squares by the normal equations",
            Algorithm::Cp(Method::AlsQr) => {
                "CP: alternating least squares by QR, for nearly collinear terms"
            }
            Algorithm::Cp(Method::AlsQrSvd) => {
                "CP: the same with the pseudo-inverse, for rank-deficient factors"
            }
            Algorithm::Cp(Method::Nls) => "CP: nonlinear least squares, damped Gauss–Newton",
            Algorithm::Cp(Method::Auto) => "CP: ALS, then NLS where it gains, then bounded energy",
            Algorithm::Cp(Method::Power) => {
                "CP: rank-one terms one after another, by the tensor power method"
            }
            Algorithm::Epc => {
                "CP: ALS, then the smallest terms within an error bound (error-preserving correction)"
            }
            Algorithm::Cp(Method::Nonneg) => "CP with non-negative factors",
            Algorithm::Cp(Method::SampledAls) => {
                "CP of tensors too large for exact sweeps, from sampled entries"
            }
            Algorithm::AlsSigma => "CP in the metric of a layer's inputs, given by --statistics",
            Algorithm::Hosvd => {
                "Tucker by truncated singular value decompositions, without iterations"
            }
            Algorithm::Hooi => "Tucker by orthogonal iteration",
            Algorithm::Tucker2 => {
                "Tucker in the first two modes alone: the channels of a convolution kernel"
            }
        }
    }

    /// Whether it gives a core and not terms.
    pub(super) fn is_tucker(self) -> bool {
        matches!(self, Algorithm::Hosvd | Algorithm::Hooi | Algorithm::Tucker2)
    }
}

impl ValueEnum for Algorithm {
    fn value_variants<'a>() -> &'a [Self] {
        &Algorithm::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.about()))
    }
}

/// What `--rank` asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum RankChoice {
    /// So many terms.
    Terms(usize),
    /// The estimate of variational Bayes from the first two unfoldings.
    Evbmf,
    /// The smallest that reaches this relative error.
    Error(f64),
}

impl FromStr for RankChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "evbmf" {
            return Ok(RankChoice::Evbmf);
        }
        if let Some(error) = text.strip_prefix("error=") {
            return match error.parse::<f64>() {
                Ok(error) if error > 0.0 && error < 1.0 => Ok(RankChoice::Error(error)),
                _ => Err(format!("`{error}` is no relative error between 0 and 1")),
            };
        }
        positive(text).map(RankChoice::Terms).map_err(|error| {
            format!("{error}; or `evbmf`, or `error=E` for the smallest rank of relative error E")
        })
    }
}

/// Refuses options that the method would not look at.
pub(super) fn check(args: &Args) -> Result<(), Usage> {
    use Algorithm::{AlsSigma, Cp, Epc, Hooi, Hosvd, Tucker2};
    use Method::{Als, AlsQr, AlsQrSvd, Auto, Nls, Nonneg, Power, SampledAls};
    let method = args.method;
    let starts = [Cp(Als), Cp(AlsQr), Cp(AlsQrSvd), Cp(Nls), Cp(Auto), Epc, Cp(SampledAls)];
    let cp: Vec<Algorithm> =
        Algorithm::ALL.into_iter().filter(|method| !method.is_tucker()).collect();
    let takes: [(&str, bool, &[Algorithm]); 10] = [
        ("--extrapolate", args.extrapolate, &[Cp(Als)]),
        ("--ridge", args.ridge.is_some(), &[Cp(Als), Epc, Cp(SampledAls), AlsSigma]),
        ("--delta", args.delta.is_some(), &[Epc]),
        ("--penalty", args.penalty.is_some(), &[Cp(Nls)]),
        ("--samples", args.samples.is_some(), &[Cp(SampledAls)]),
        ("--statistics", args.statistics.is_some(), &[AlsSigma]),
        ("--ranks", args.ranks.is_some(), &[Hosvd, Hooi, Tucker2]),
        ("--rank", args.rank.is_some(), &cp),
        ("--precompress", args.precompress, &[&starts[..], &[Cp(Power)]].concat()),
        (
            "--init-factors",
            args.init_factors.is_some(),
            &[&starts[..], &[Cp(Nonneg), AlsSigma]].concat(),
        ),
    ];
    for (option, given, methods) in takes {
        if given && !methods.contains(&method) {
            let names: Vec<&str> = methods.iter().map(|method| method.name()).collect();
            return Err(Usage(format!(
                "{option} is for --method {}, not for {}",
                names.join(", "),
                method.name()
            )));
        }
    }
    if method == AlsSigma && args.statistics.is_none() {
        let what = "--method als-sigma needs --statistics S.npy, the second moments of the inputs";
        return Err(Usage(what.into()));
    }
    if method.is_tucker() && args.ranks.is_none() {
        return Err(Usage(format!("--method {} needs --ranks R0,R1,…", method.name())));
    }
    if !method.is_tucker() && args.rank.is_none() {
        return Err(Usage("--rank R is needed: a number, `evbmf` or `error=E`".into()));
    }
    Ok(())
}

/// The CP solver that the options describe; `None` for the Tucker methods, and for als-sigma without statistics, which
/// [`check`] refuses before.
pub(super) fn solver<T: Real>(
    args: &Args,
    rank: usize,
    init: Init,
    statistics: Option<&Arc<InputStatistics>>,
) -> Option<Box<dyn Solver<T>>> {
    let (iters, tol, seed) = (args.max_iters, args.tol, seed_of(&init));
    let solver: Box<dyn Solver<T>> = match args.method {
        Algorithm::Cp(Method::Als) => {
            let als = Als::new(rank).max_iters(iters).tol(tol).init(init);
            let als = als.extrapolate(args.extrapolate);
            Box::new(args.ridge.map_or(als.clone(), |ridge| als.ridge(ridge)))
        }
        Algorithm::Cp(Method::AlsQr) => {
            Box::new(AlsQr::new(rank).max_iters(iters).tol(tol).init(init))
        }
        Algorithm::Cp(Method::AlsQrSvd) => {
            Box::new(AlsQr::svd(rank).max_iters(iters).tol(tol).init(init))
        }
        Algorithm::Cp(Method::Nls) => {
            let nls = Nls::new(rank).max_iters(iters).tol(tol).init(init);
            Box::new(nls.penalty(args.penalty.unwrap_or(0.0)))
        }
        Algorithm::Cp(Method::Auto) => {
            Box::new(Auto::new(rank).max_iters(iters).tol(tol).init(init))
        }
        Algorithm::Cp(Method::Power) => {
            Box::new(PowerMethod::new(rank).max_iters(iters).seed(seed))
        }
        Algorithm::Epc => {
            let delta = args.delta.map_or(Delta::Auto, Delta::Relative);
            let epc = Epc::new(rank).als_sweeps(iters).delta(delta).init(init);
            Box::new(args.ridge.map_or(epc.clone(), |ridge| epc.ridge(ridge)))
        }
        Algorithm::Cp(Method::Nonneg) => {
            Box::new(NonNegAls::new(rank).max_iters(iters).tol(tol).init(init))
        }
        Algorithm::Cp(Method::SampledAls) => {
            let mut sampled = SampledAls::new(rank).epochs(iters).tol(tol).seed(seed).init(init);
            if let Some(samples) = args.samples {
                sampled = sampled.samples(samples);
            }
            if let Some(ridge) = args.ridge {
                sampled = sampled.ridge(ridge);
            }
            Box::new(sampled)
        }
        Algorithm::AlsSigma => {
            let aware = DataAwareAls::new(rank, Arc::clone(statistics?));
            let aware = aware.max_iters(iters).tol(tol).init(init);
            Box::new(args.ridge.map_or(aware.clone(), |ridge| aware.ridge(ridge)))
        }
        Algorithm::Hosvd | Algorithm::Hooi | Algorithm::Tucker2 => return None,
    };
    Some(if args.precompress { Box::new(Precompressed::new(solver)) } else { solver })
}

fn seed_of(init: &Init) -> u64 {
    match init {
        Init::Random { seed } | Init::Hosvd { seed } | Init::Resized { seed, .. } => *seed,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_numbers_or_rules() {
        assert_eq!("64".parse(), Ok(RankChoice::Terms(64)));
        assert_eq!("evbmf".parse(), Ok(RankChoice::Evbmf));
        assert_eq!("error=0.1".parse(), Ok(RankChoice::Error(0.1)));
        for bad in ["0", "-3", "error=0", "error=2", "error=x", "auto"] {
            assert!(bad.parse::<RankChoice>().is_err(), "{bad}");
        }
    }
}
