//! The operator's command line: asks the cloud's API. Everything is in [`weir_cloud::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    weir_cloud::cli::main()
}
