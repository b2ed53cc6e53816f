//! The daemon `weir-gateway`, and its tools.

use std::process::ExitCode;

fn main() -> ExitCode {
    weir_gateway::cli::main()
}
