//! The binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    punchline::cli::main()
}
