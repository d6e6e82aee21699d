//! Checks which of the configured services respond. Sends all requests at once.

use std::collections::BTreeMap;
use std::time::Duration;

use modhost_sdk::http::{self, Sent};
use modhost_sdk::prelude::*;
use modhost_sdk::{Error, ErrorKind};

modhost_sdk::module!(answer);

/// The timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(5);

fn answer(_: ModuleChosen) -> Result<()> {
    let services: BTreeMap<String, String> = config::parse("services")?.ok_or_else(|| {
        Failure::new("no services are configured; add config = { services = { Shop = \"https://…\" } } in modules.toml")
    })?;

    let step = Step::start(format!("Asking {} services…", services.len()))?;
    let requests: Vec<_> = services.iter().map(|(name, url)| (name, http::get(url).timeout(TIMEOUT).begin())).collect();
    let lines: Vec<_> = requests
        .into_iter()
        .map(|(name, sent)| line(name, sent.and_then(Sent::answer).map(|response| response.status())))
        .collect();
    step.done()?;

    messages::reply(lines.join("\n")).complete()?;
    Ok(())
}

/// Returns the line of the reply about one service.
fn line(name: &str, status: Result<u16, Error>) -> String {
    match status {
        Ok(status @ 200..=399) => format!("- **{name}** is up ({status})"),
        Ok(status) => format!("- **{name}** answers with an error ({status})"),
        Err(error) => {
            // The reason is for operators.
            warn!("{name}: {error}");
            match error.kind() {
                ErrorKind::Denied(_) => format!("- **{name}** is not an allowed host"),
                _ => format!("- **{name}** doesn't answer"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_is_up_if_its_status_is_no_error() {
        let failed = |kind| Err(Error::new("http.send", kind));
        assert_eq!(line("Shop", Ok(204)), "- **Shop** is up (204)");
        assert_eq!(line("Shop", Ok(301)), "- **Shop** is up (301)");
        assert_eq!(line("Shop", Ok(503)), "- **Shop** answers with an error (503)");
        assert_eq!(line("Shop", failed(ErrorKind::Timeout)), "- **Shop** doesn't answer");
        assert_eq!(line("Shop", failed(ErrorKind::Denied("no".into()))), "- **Shop** is not an allowed host");
    }
}
