//! Where the programs are: ours are built once per run, the others come from `make setup`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process;

/// For an emulator to say its version.
const EMULATOR_WITHIN: Duration = Duration::from_secs(20);

/// The workspace's root.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is a folder of the workspace")
}

/// The path of one of the workspace's binaries, of the same profile as this program, built if it is missing or old.
pub fn ours(name: &str) -> Result<PathBuf> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    BUILT
        .get_or_init(|| build().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(anyhow::Error::msg)?;
    let path = folder()?.join(name);
    if !path.is_file() {
        bail!("{} is not there although cargo built all binaries", path.display());
    }
    Ok(path)
}

/// A program of ours, and what has to run it.
#[derive(Clone, Debug)]
pub struct Program {
    /// What the system starts: the program, or an emulator.
    pub file: PathBuf,
    /// What the emulator is to run, and how.
    before: Vec<String>,
}

impl Program {
    /// One of the workspace's binaries, for this machine; see [`ours`].
    pub fn ours(name: &str) -> Result<Program> {
        Ok(Program { file: ours(name)?, before: Vec::new() })
    }

    /// What `make pi` has built for another architecture (`arm64` or `armhf`), run by qemu-user. `None` where it was not
    /// built, or there is no emulator; an error if `$WEIR_PI` names the architecture.
    pub fn for_pi(name: &str, architecture: &str) -> Result<Option<Program>> {
        let (target, emulator, more) = match architecture {
            "arm64" => (
                "aarch64-unknown-linux-gnu",
                "qemu-aarch64-static",
                ["-L", "/usr/aarch64-linux-gnu"].as_slice(),
            ),
            "armhf" => (
                "armv7-unknown-linux-gnueabihf",
                "qemu-arm-static",
                // What a Raspberry Pi 2 has.
                ["-cpu", "cortex-a7", "-L", "/usr/arm-linux-gnueabihf"].as_slice(),
            ),
            other => bail!("no Raspberry Pi is {other}"),
        };
        let folder = folder()?;
        let program = folder.parent().context("target/ has no folder")?.join(target).join("pi").join(name);
        let emulator = PathBuf::from(emulator);
        let runs = process::output(&emulator, &["--version"], EMULATOR_WITHIN).is_ok();
        if !runs || !program.is_file() {
            let missing = format!("{} or {}", program.display(), emulator.display());
            if std::env::var("WEIR_PI").is_ok_and(|wanted| wanted.split(' ').any(|word| word == architecture))
            {
                bail!("there is no {missing}, and WEIR_PI asks for {architecture}");
            }
            eprintln!("skipped: no {missing}; make pi gets both where it can");
            return Ok(None);
        }
        let program = program.to_str().context("a folder that is not UTF-8")?.to_owned();
        let before = more.iter().map(|word| (*word).to_owned()).chain([program]).collect();
        Ok(Some(Program { file: emulator, before }))
    }

    /// The same program, started with these in its environment, each `NAME=value`.
    pub fn with_environment(&self, variables: Vec<String>) -> Result<Program> {
        let file = self.file.to_str().context("a folder that is not UTF-8")?.to_owned();
        let before = variables.into_iter().chain([file]).chain(self.before.clone()).collect();
        Ok(Program { file: "env".into(), before })
    }

    /// The same, run by another program with these arguments before it.
    pub fn under(self, file: &str, arguments: &[&str]) -> Result<Program> {
        let program = self.file.to_str().context("a folder that is not UTF-8")?.to_owned();
        let before = arguments.iter().map(|word| (*word).to_owned()).chain([program]).chain(self.before);
        Ok(Program { file: file.into(), before: before.collect() })
    }

    /// All that follows [`file`](Self::file) on the command line, if the program is to be given these.
    #[must_use]
    pub fn arguments<'a>(&'a self, own: &[&'a str]) -> Vec<&'a str> {
        self.before.iter().map(String::as_str).chain(own.iter().copied()).collect()
    }
}

/// The unit tests of one of the workspace's libraries, as a program; built if it is missing or old.
pub fn unit_tests(library: &str) -> Result<PathBuf> {
    let done = cargo(&["test", "--lib", "--no-run", "--message-format", "json"])?;
    for line in String::from_utf8_lossy(&done).lines() {
        let Ok(said) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        if said["target"]["name"] == library
            && said["profile"]["test"] == true
            && let Some(path) = said["executable"].as_str()
        {
            return Ok(path.into());
        }
    }
    bail!("cargo built no unit tests of {library}")
}

/// nats-server: `$NATS_SERVER`, else what `make setup` found.
pub fn nats_server() -> Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            // Does nothing when nothing is missing, so `cargo test` works without `make`, too.
            let setup = root().join("tests/setup.sh");
            let done =
                Command::new(&setup).output().map_err(|error| format!("{}: {error}", setup.display()))?;
            if done.status.success() {
                Ok(root().join(".tools/bin/nats-server"))
            } else {
                Err(String::from_utf8_lossy(&done.stderr).into_owned())
            }
        })
        .clone()
        .map_err(anyhow::Error::msg)
}

/// The firmware's image for a board, whose target is `target`; built if it is missing or old.
pub fn firmware(board: &str, target: &str) -> Result<PathBuf> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let build = root().join("firmware/build.sh");
            let done = Command::new(&build).arg(board).output();
            let done = done.map_err(|error| format!("{}: {error}", build.display()))?;
            if done.status.success() {
                Ok(())
            } else {
                Err(String::from_utf8_lossy(&done.stderr).into_owned())
            }
        })
        .clone()
        .map_err(anyhow::Error::msg)?;
    Ok(root().join(format!("firmware/target/{target}/release/weir-{board}")))
}

/// The folder with the Python packages that `make setup` installed.
#[must_use]
pub fn python_packages() -> PathBuf {
    root().join(".tools/python")
}

/// `target/debug` or `target/release`: where this program itself was built.
pub fn folder() -> Result<PathBuf> {
    let me = std::env::current_exe().context("asking where this program is")?;
    let mut folder = me.parent().context("this program is in no folder")?;
    // Tests are in `deps/` below it.
    if folder.ends_with("deps") {
        folder = folder.parent().context("deps/ is in no folder")?;
    }
    Ok(folder.to_owned())
}

fn build() -> Result<()> {
    cargo(&["build", "--bins"]).map(|_| ())
}

/// Has cargo do something with the whole workspace, in the profile of this program; what it printed.
fn cargo(arguments: &[&str]) -> Result<Vec<u8>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).args(["--quiet", "--locked", "--workspace"]).current_dir(root());
    // What cargo says to this test about its own package would look to build scripts (ring's watches it) like a change,
    // and half of the dependencies would be built again, now and at the next `make`.
    for (name, _) in std::env::vars_os() {
        let of_a_package = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_")
                || name.starts_with("CARGO_MANIFEST_")
                || name == "CARGO_CRATE_NAME"
        });
        if of_a_package {
            command.env_remove(name);
        }
    }
    if folder()?.ends_with("release") {
        command.arg("--release");
    }
    let done = command.output().context("running cargo")?;
    if !done.status.success() {
        bail!("cargo {} --workspace: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr));
    }
    Ok(done.stdout)
}
