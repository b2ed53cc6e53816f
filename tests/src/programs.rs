//! Where the programs are: ours are built once per run, the others come from `make setup`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

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
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--locked", "--workspace", "--bins"]).current_dir(root());
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
    let done = command.output().context("running cargo build")?;
    if !done.status.success() {
        bail!("cargo build --workspace --bins: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}
