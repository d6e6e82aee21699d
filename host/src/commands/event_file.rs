//! An event in a file, and headers on the command line: what commands take that play a platform.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, anyhow};
use axum::http::{HeaderName, HeaderValue};

/// A file with the body of a request, or standard input.
#[derive(Clone, Debug)]
pub(super) enum EventFile {
    /// This file.
    File(PathBuf),
    /// Standard input: `-`.
    Stdin,
}

/// A header of a request.
#[derive(Clone, Debug)]
pub(super) struct HeaderLine {
    pub name: HeaderName,
    pub value: HeaderValue,
}

impl EventFile {
    /// Reads the body, byte by byte as it stands there.
    pub fn read(&self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::File(path) => std::fs::read(path).with_context(|| format!("{} can't be read", path.display())),
            Self::Stdin => {
                let mut body = Vec::new();
                std::io::stdin().read_to_end(&mut body).context("standard input can't be read")?;
                Ok(body)
            }
        }
    }
}

impl FromStr for EventFile {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text == "-" { Self::Stdin } else { Self::File(text.into()) })
    }
}

impl fmt::Display for EventFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Stdin => f.write_str("standard input"),
        }
    }
}

/// Reads a header as it stands in a request.
pub(super) fn parse_header(text: &str) -> anyhow::Result<HeaderLine> {
    let (name, value) = text.split_once(':').ok_or_else(|| anyhow!("write it as 'Name: value'"))?;
    let name = name.trim().parse().map_err(|_| anyhow!("\"{name}\" can't be the name of a header"))?;
    let value = value.trim().parse().map_err(|_| anyhow!("its value can't stand in a header"))?;
    Ok(HeaderLine { name, value })
}
