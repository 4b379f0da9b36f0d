//! `cargo xtask profiles`: the profiles that are shipped, made again, and what they are worth beside profiles of the same values at random heads.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{demo, eval, model::Choice, process, workspace::Workspace};

/// How DuoAttention's gates of this model are learned: with the authors' weight of 0.05 nearly all stay open, as the book says.
const WEIGHT: &str = "0.5";
const STEPS: &str = "150";
/// The same values at other heads, so many times.
const DRAWS: [&str; 3] = ["1", "2", "3"];

/// Sets up, builds the command line, and runs it.
pub(crate) fn run(workspace: &Workspace, choice: &Choice, out: &Path) -> Result<()> {
    let (model, text) = eval::prepared(workspace, choice)?;
    let bench = Bench {
        workspace,
        binary: demo::build(workspace, "profiles")?,
        model,
        text,
        out: out.to_owned(),
    };
    bench.all()
}

struct Bench<'a> {
    workspace: &'a Workspace,
    binary: PathBuf,
    model: PathBuf,
    text: PathBuf,
    out: PathBuf,
}

impl Bench<'_> {
    fn all(&self) -> Result<()> {
        let out = self.path("duo");
        self.learn(&[
            "duo",
            "--gate-weight",
            WEIGHT,
            "--steps",
            STEPS,
            "--out",
            &out,
        ])?;
        for score in ["r", "r2"] {
            let out = self.path(&format!("head-kv.{score}.json"));
            self.learn(&["head-kv", "--score", score, "--out", &out])?;
        }
        let mut duo = vec!["duo".to_owned()];
        let mut head_kv = ["head-kv.r.json", "head-kv.r2.json"]
            .map(str::to_owned)
            .to_vec();
        for draw in DRAWS {
            duo.push(format!("duo-random-{draw}"));
            self.shuffle(&duo[0], &format!("duo-random-{draw}"), draw)?;
            head_kv.push(format!("head-kv-random-{draw}.json"));
            self.shuffle(&head_kv[1], &format!("head-kv-random-{draw}.json"), draw)?;
        }
        self.measure("duo-attention", &duo, "50%", &[])?;
        self.measure("head-kv", &head_kv, "64", &["snap-kv:window=8"])
    }

    fn path(&self, name: &str) -> String {
        self.out.join(name).display().to_string()
    }

    fn learn(&self, options: &[&str]) -> Result<()> {
        let [model, text] = [&self.model, &self.text].map(|path| path.display().to_string());
        let (kind, rest) = options.split_at(1);
        let source = ["--model", &model, "--text", &text];
        self.call(&[&["profile"], kind, &source, rest].concat())
    }

    fn shuffle(&self, from: &str, to: &str, seed: &str) -> Result<()> {
        let (from, to) = (self.path(from), self.path(to));
        self.call(&["profile", "shuffle", &from, "--out", &to, "--seed", seed])
    }

    /// A policy without a profile and with each of some, beside others.
    fn measure(
        &self,
        policy: &str,
        profiles: &[String],
        budget: &str,
        others: &[&str],
    ) -> Result<()> {
        let with = profiles
            .iter()
            .map(|name| format!("{policy}:profile={}", self.path(name)));
        let all: Vec<String> = std::iter::once(policy.to_owned())
            .chain(with)
            .chain(others.iter().map(ToString::to_string))
            .collect();
        let (model, text) = (
            self.model.display().to_string(),
            self.text.display().to_string(),
        );
        let out = self.path(&format!("{policy}-eval"));
        self.call(&[
            "eval",
            "--model",
            &model,
            "--text",
            &text,
            "--policies",
            &all.join(","),
            "--budgets",
            budget,
            "--tasks",
            "passkey,multi-key,text",
            "--trials",
            "6",
            "--out",
            &out,
        ])
    }

    fn call(&self, arguments: &[&str]) -> Result<()> {
        let mut command = process::without_us(&self.binary);
        command.current_dir(self.workspace.root()).args(arguments);
        println!("profiles: {}", process::written(&command));
        process::run(&mut command)
    }
}
