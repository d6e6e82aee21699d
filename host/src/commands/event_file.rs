//! Arguments of commands that act as a platform: an event in a file, and request headers.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, anyhow};
use axum::http::{HeaderName, HeaderValue};

/// The source of a request body.
#[derive(Clone, Debug)]
pub(super) enum EventFile {
    /// A file.
    File(PathBuf),
    /// Standard input: `-`.
    Stdin,
}

/// A request header.
#[derive(Clone, Debug)]
pub(super) struct HeaderLine {
    pub name: HeaderName,
    pub value: HeaderValue,
}

impl EventFile {
    /// Reads the body, unchanged.
    pub fn read(&self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::File(path) => std::fs::read(path).with_context(|| format!("cannot read {}", path.display())),
            Self::Stdin => {
                let mut body = Vec::new();
                std::io::stdin().read_to_end(&mut body).context("cannot read standard input")?;
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

/// Parses a header line, `Name: value`.
pub(super) fn parse_header(text: &str) -> anyhow::Result<HeaderLine> {
    let (name, value) = text.split_once(':').ok_or_else(|| anyhow!("expected 'Name: value'"))?;
    let name = name.trim().parse().map_err(|_| anyhow!("\"{name}\" is not a valid header name"))?;
    let value = value.trim().parse().map_err(|_| anyhow!("the value is not a valid header value"))?;
    Ok(HeaderLine { name, value })
}
