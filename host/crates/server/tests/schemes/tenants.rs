//! Whose an event is: a secret of one tenant opens nothing of another's, however well it signs.

use axum::http::{HeaderMap, StatusCode};
use modhost_core::event::Event;
use modhost_ingress::sources::schemes::Outgoing;
use modhost_ingress::sources::{Received, Rejection, Source};

use super::{headers, plan, receive, source_of, time};

const NOW: u64 = 1_767_225_600;

/// How a scheme's events name a company.
struct Case {
    scheme: &'static str,
    secret: &'static str,
    /// What its source is told besides.
    lines: &'static str,
    headers: &'static [(&'static str, &'static str)],
    /// A body, with `COMPANY` where the company stands.
    body: &'static str,
}

/// Each scheme that carries a company, and each other with one that is configured.
const WAYS: [Case; 12] = [
    Case {
        scheme: "unique",
        secret: "usig_a",
        lines: "",
        headers: &[],
        body: r#"{"id":"1","event":"e","companyId":"COMPANY","payload":{}}"#,
    },
    Case {
        scheme: "slack",
        secret: "hush",
        lines: "",
        headers: &[],
        body: r#"{"event_id":"1","team_id":"COMPANY","event":{"type":"e"}}"#,
    },
    Case {
        scheme: "linear",
        secret: "lin_wh_a",
        lines: "",
        headers: &[],
        body: r#"{"type":"e","organizationId":"COMPANY"}"#,
    },
    Case {
        scheme: "archivus",
        secret: "whk_a",
        lines: "event = { company = 'body:data.tenant_id' }",
        headers: &[],
        body: r#"{"id":"1","type":"e","data":{"tenant_id":"COMPANY"}}"#,
    },
    Case {
        scheme: "nexus",
        secret: "open sesame",
        lines: "header = 'nexus-signature'\nevent = { company = 'body:payload.companyId' }",
        headers: &[],
        body: r#"{"event":"e","payload":{"id":"1","updatedAt":"1","companyId":"COMPANY"}}"#,
    },
    Case {
        scheme: "standard-webhooks",
        secret: "whsec_c2VzYW1l",
        lines: "event = { company = 'body:data.account' }",
        headers: &[],
        body: r#"{"type":"e","data":{"account":"COMPANY"}}"#,
    },
    Case {
        scheme: "github",
        secret: "hush",
        lines: "event = { company = 'body:organization.login' }",
        headers: &[("x-github-event", "e")],
        body: r#"{"organization":{"login":"COMPANY"}}"#,
    },
    Case {
        scheme: "stripe",
        secret: "whsec_a",
        lines: "event = { company = 'body:account' }",
        headers: &[],
        body: r#"{"id":"1","type":"e","account":"COMPANY"}"#,
    },
    Case {
        scheme: "shopify",
        secret: "hush",
        lines: "event = { company = 'body:shop_id' }",
        headers: &[("x-shopify-topic", "e")],
        body: r#"{"shop_id":"COMPANY"}"#,
    },
    Case {
        scheme: "discord",
        secret: "1111111111111111111111111111111111111111111111111111111111111111\
                 d04ab232742bb4ab3a1368bd4615e4e6d0224ab71a016baf8520a332c9778737",
        lines: "event = { company = 'body:guild_id' }",
        headers: &[],
        body: r#"{"type":2,"guild_id":"COMPANY","data":{"name":"e"}}"#,
    },
    Case {
        scheme: "hmac",
        secret: "hush",
        lines: "header = 'x-signature'\nevent = { company = 'body:org', name = 'body:type' }",
        headers: &[],
        body: r#"{"type":"e","org":"COMPANY"}"#,
    },
    Case {
        scheme: "none",
        secret: "",
        lines: "event = { company = 'body:org', name = 'body:type' }",
        headers: &[],
        body: r#"{"type":"e","org":"COMPANY"}"#,
    },
];

/// Two tenants, each with these lines.
fn tenants(ours: &str, theirs: &str) -> String {
    let platform =
        r#"platform = { kind = "unique", api_base = "https://example.com", app_id = "app", api_key = "file:KEY" }"#;
    format!("[[tenant]]\nname = 'ours'\n{ours}\n{platform}\n[[tenant]]\nname = 'theirs'\n{theirs}\n{platform}\n")
}

impl Case {
    fn lines(&self) -> String {
        let secrets = if self.secret.is_empty() { "" } else { "secrets = ['env:S']" };
        format!("scheme = {:?}\n{secrets}\n{}", self.scheme, self.lines).replace("'env:S'", "\"env:S\"")
    }

    fn source(&self, tenant: &str, tenants: &str) -> Source {
        source_of(&format!("{tenant}\n{}", self.lines()), tenants, &[("S", self.secret)])
    }

    /// An event of a company, well signed; none: that names no company.
    fn bring(&self, source: &Source, company: Option<&str>) -> Result<Event, Rejection> {
        let body = match company {
            Some(company) => self.body.replace("COMPANY", company),
            None => self.body.replace("\"COMPANY\"", "null"),
        };
        let body = source.scheme.dated(body.as_bytes(), time(NOW)).into_owned();
        let mut all: HeaderMap = headers(self.headers.iter().copied());
        let outgoing = Outgoing { body: &body, headers: &all, now: time(NOW), id: "id_1" };
        all.extend(source.scheme.sign(&outgoing, source.keys.first()).unwrap());
        match receive(source, &all, std::str::from_utf8(&body).unwrap(), NOW)? {
            Received::Event(event) => Ok(*event),
            Received::Challenge(answer) => panic!("{}: {answer:?}", self.scheme),
        }
    }
}

fn taken(way: &Case, source: &Source, company: Option<&str>, tenant: &str) {
    let event = way.bring(source, company).unwrap_or_else(|rejection| panic!("{}: {rejection}", way.scheme));
    assert_eq!((event.tenant.as_str(), event.company_id.as_deref()), (tenant, company), "{}", way.scheme);
}

/// It is another tenant's.
fn refused(way: &Case, source: &Source, company: Option<&str>) {
    let rejection = way.bring(source, company).expect_err(way.scheme);
    assert!(matches!(rejection, Rejection::ForeignCompany(_)), "{}: {rejection}", way.scheme);
    assert_eq!(rejection.status(&*source.scheme), StatusCode::FORBIDDEN, "{}", way.scheme);
}

/// It is nobody's: refused, or acknowledged where a platform signs for many companies alike and gives up what refuses some.
fn nobodys(way: &Case, source: &Source, company: Option<&str>) {
    let rejection = way.bring(source, company).expect_err(way.scheme);
    let status = rejection.status(&*source.scheme);
    let always_names_one = ["unique", "slack", "linear"].contains(&way.scheme);
    match (company, &rejection) {
        (None, Rejection::NotAnEvent(_)) if always_names_one => assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE),
        (Some(_), Rejection::UnclaimedCompany(Some(_))) if way.scheme == "unique" => {
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        }
        (Some(_), Rejection::UnclaimedCompany(Some(_))) | (None, Rejection::UnclaimedCompany(None)) => {
            assert_eq!(status, StatusCode::OK, "{}", way.scheme);
        }
        _ => panic!("{}: {company:?}: {rejection}", way.scheme),
    }
}

#[test]
fn a_tenants_secret_brings_no_other_tenants_events() {
    for way in &WAYS {
        let both = tenants("companies = ['a', 'a2']", "companies = ['b']");
        let source = way.source("tenant = 'ours'", &both);
        taken(way, &source, Some("a"), "ours");
        taken(way, &source, Some("a2"), "ours");
        refused(way, &source, Some("b"));
        for company in [Some("c"), Some("A"), Some("a "), None] {
            nobodys(way, &source, company);
        }
    }
}

/// A tenant that lists no companies has any, but none that is another's.
#[test]
fn any_company_is_none_of_anothers() {
    for way in &WAYS {
        let both = tenants("", "companies = ['b']");
        let source = way.source("tenant = 'ours'", &both);
        taken(way, &source, Some("c"), "ours");
        taken(way, &source, None, "ours");
        refused(way, &source, Some("b"));
    }
}

#[test]
fn without_a_tenant_the_company_tells() {
    for way in &WAYS {
        let source = way.source("", &tenants("companies = ['a']", "companies = ['b']"));
        taken(way, &source, Some("a"), "ours");
        taken(way, &source, Some("b"), "theirs");
        for company in [Some("c"), None] {
            nobodys(way, &source, company);
        }
        let source = way.source("", &tenants("companies = ['a']", ""));
        taken(way, &source, Some("a"), "ours");
        taken(way, &source, Some("c"), "theirs");
        nobodys(way, &source, None);
    }
}

/// An event acts for the company it names under the source's rules, and for none besides.
#[test]
fn a_source_that_looks_for_no_company_acts_for_none() {
    let both = tenants("companies = ['a']", "companies = ['b']");
    for way in &WAYS {
        let lines = match way.lines {
            "" => "event = { company = 'none' }".to_owned(),
            lines => {
                lines.replace("company = 'body:org'", "company = 'none'").replace("company = 'body:", "user = 'body:")
            }
        };
        let way = Case { lines: lines.leak(), ..*way };
        // Nothing tells whose its events are: the host doesn't start with it.
        let text = format!("[[source]]\nname = 'in'\npath = '/in'\n{}\n{both}", way.lines());
        let errors = plan(&text, &[("S", way.secret)]).err().expect(way.scheme).to_string();
        assert!(errors.contains("the events of the source \"in\" don't say whose they are"), "{errors}");
        // With a tenant they are its own, and act for no company, whatever the body says.
        let source = way.source("tenant = 'ours'", &both);
        let event = way.bring(&source, Some("b")).unwrap();
        assert_eq!((event.tenant.as_str(), event.company_id.as_deref()), ("ours", None), "{}", way.scheme);
    }
}
