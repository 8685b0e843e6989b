//! [`Peer`]: an engine of other people's that runs one model in a Python process of its own, `benches/engines/worker.py`.
//!
//! Its packages are installed by `cargo xtask bench engines`, which names their interpreter in [`PYTHON`].

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use cp_net::{Network, TemporaryFolder};
use cp_onnx::{ExportOptions, export};
use cp_train::TrainError;
use cp_train::engine::Ready;

/// The interpreter that has the engines.
const PYTHON: &str = "POLYAD_ENGINES_PYTHON";

pub(crate) struct Peer {
    engine: &'static str,
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Of the engine.
    pub(crate) version: String,
    _model: TemporaryFolder,
}

impl Peer {
    /// Starts `engine` with `network`, folded, on drawn inputs of so many images.
    pub(crate) fn start(
        engine: &'static str,
        network: &Network,
        batch: usize,
        threads: usize,
    ) -> Result<Self> {
        let python = std::env::var_os(PYTHON).with_context(|| {
            format!("the engine {engine} needs Python packages, which `cargo xtask bench engines` installs")
        })?;
        let folder = TemporaryFolder::create()?;
        let model = folder.path().join("model.onnx");
        export(network, &ExportOptions { fold: true, ..ExportOptions::default() })?.save(&model)?;
        let sizes = std::iter::once(batch).chain(network.input().shape.iter().copied());
        let sizes: Vec<String> = sizes.map(|size| size.to_string()).collect();
        let worker = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let worker = worker.join("../../benches/engines/worker.py");
        let mut process = Command::new(&python)
            .arg(&worker)
            .arg(engine)
            .arg(&model)
            .arg(threads.to_string())
            .arg(sizes.join(","))
            // Libraries below the engines have pools of their own.
            .env("OMP_NUM_THREADS", threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", python.display()))?;
        let (Some(questions), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            bail!("{engine}: no pipes");
        };
        let answers = BufReader::new(answers);
        let mut peer =
            Self { engine, process, questions, answers, version: String::new(), _model: folder };
        let line = peer.line()?;
        let Some(version) = line.strip_prefix("ready ") else { bail!("{engine}: {line}") };
        peer.version = version.to_owned();
        Ok(peer)
    }

    /// Seconds of a pass, as the mean of so many.
    fn ask(&mut self, count: usize) -> Result<f64, TrainError> {
        let sent = writeln!(self.questions, "{count}").and_then(|()| self.questions.flush());
        sent.map_err(|error| self.stopped(error.to_string()))?;
        let line = self.line()?;
        line.parse().map_err(|_| self.stopped(line))
    }

    fn line(&mut self) -> Result<String, TrainError> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => {
                let what = self.last_words();
                Err(self.stopped(what))
            }
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(self.stopped(error.to_string())),
        }
    }

    /// The last line that the process wrote where errors go.
    fn last_words(&mut self) -> String {
        let lines = self.process.stderr.take().map(|stderr| BufReader::new(stderr).lines());
        let last = lines.into_iter().flatten().map_while(Result::ok).last();
        let last = last.unwrap_or_else(|| "it ended without a word".into());
        last.strip_prefix(&format!("{}: ", self.engine)).unwrap_or(&last).to_owned()
    }

    fn stopped(&self, what: String) -> TrainError {
        TrainError::Peer { engine: self.engine.into(), what }
    }
}

impl Ready for Peer {
    fn pass(&mut self) -> Result<(), TrainError> {
        self.ask(1).map(drop)
    }

    fn sample(&mut self, count: usize, _most: f64) -> Result<f64, TrainError> {
        self.ask(count)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // A process that has ended already needs no end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
