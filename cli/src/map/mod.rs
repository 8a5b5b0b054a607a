//! `spandrel map`: a stub for now.

#[derive(clap::Args)]
pub struct Arguments {}

pub fn map(_: &Arguments) -> anyhow::Result<std::process::ExitCode> {
    Ok(std::process::ExitCode::SUCCESS)
}
