//! Tests which tenant gets an event: a valid signature of one tenant never gives access to another tenant.

use axum::http::{HeaderMap, StatusCode};
use modhost_core::event::Event;
use modhost_ingress::sources::schemes::Outgoing;
use modhost_ingress::sources::{Received, Rejection, Source};

use super::{headers, receive, resolve, source_of, time};

const NOW: u64 = 1_767_225_600;

/// How the events of a scheme name a company.
struct Case {
    scheme: &'static str,
    secret: &'static str,
    /// Additional settings of the source.
    lines: &'static str,
    headers: &'static [(&'static str, &'static str)],
    /// A body with the placeholder `COMPANY`.
    body: &'static str,
}

/// Each scheme whose events name a company, and the others with a configured company.
const CASES: [Case; 12] = [
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

/// Returns two tenants, each with these settings.
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

    /// Sends a signed event of a company, or of none.
    fn receive_signed(&self, source: &Source, company: Option<&str>) -> Result<Event, Rejection> {
        let body = match company {
            Some(company) => self.body.replace("COMPANY", company),
            None => self.body.replace("\"COMPANY\"", "null"),
        };
        let body = source.scheme.with_current_time(body.as_bytes(), time(NOW)).into_owned();
        let mut all: HeaderMap = headers(self.headers.iter().copied());
        let outgoing = Outgoing { body: &body, headers: &all, now: time(NOW), id: "id_1" };
        all.extend(source.scheme.sign(&outgoing, source.keys.first()).unwrap());
        match receive(source, &all, std::str::from_utf8(&body).unwrap(), NOW)? {
            Received::Event(event) => Ok(*event),
            Received::Challenge(answer) => panic!("{}: {answer:?}", self.scheme),
        }
    }
}

fn assert_accepted(case: &Case, source: &Source, company: Option<&str>, tenant: &str) {
    let event = case.receive_signed(source, company).unwrap_or_else(|rejection| panic!("{}: {rejection}", case.scheme));
    assert_eq!((event.tenant.as_str(), event.company_id.as_deref()), (tenant, company), "{}", case.scheme);
}

/// Asserts that the event is rejected because its company belongs to another tenant.
fn assert_foreign(case: &Case, source: &Source, company: Option<&str>) {
    let rejection = case.receive_signed(source, company).expect_err(case.scheme);
    assert!(matches!(rejection, Rejection::ForeignCompany(_)), "{}: {rejection}", case.scheme);
    assert_eq!(rejection.status(&*source.scheme), StatusCode::FORBIDDEN, "{}", case.scheme);
}

/// Asserts that no tenant claims the event. It is rejected, or acknowledged if the platform signs alike for many
/// companies and disables an endpoint that rejects some of them.
fn assert_unclaimed(case: &Case, source: &Source, company: Option<&str>) {
    let rejection = case.receive_signed(source, company).expect_err(case.scheme);
    let status = rejection.status(&*source.scheme);
    let always_names_one = ["unique", "slack", "linear"].contains(&case.scheme);
    match (company, &rejection) {
        (None, Rejection::NotAnEvent(_)) if always_names_one => assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE),
        (Some(_), Rejection::UnclaimedCompany(Some(_))) if case.scheme == "unique" => {
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        }
        (Some(_), Rejection::UnclaimedCompany(Some(_))) | (None, Rejection::UnclaimedCompany(None)) => {
            assert_eq!(status, StatusCode::OK, "{}", case.scheme);
        }
        _ => panic!("{}: {company:?}: {rejection}", case.scheme),
    }
}

#[test]
fn rejects_events_of_other_tenants_companies() {
    for case in &CASES {
        let both = tenants("companies = ['a', 'a2']", "companies = ['b']");
        let source = case.source("tenant = 'ours'", &both);
        assert_accepted(case, &source, Some("a"), "ours");
        assert_accepted(case, &source, Some("a2"), "ours");
        assert_foreign(case, &source, Some("b"));
        for company in [Some("c"), Some("A"), Some("a "), None] {
            assert_unclaimed(case, &source, company);
        }
    }
}

/// A tenant without companies gets events of any company that no other tenant lists.
#[test]
fn accepts_any_unclaimed_company_without_a_list() {
    for case in &CASES {
        let both = tenants("", "companies = ['b']");
        let source = case.source("tenant = 'ours'", &both);
        assert_accepted(case, &source, Some("c"), "ours");
        assert_accepted(case, &source, None, "ours");
        assert_foreign(case, &source, Some("b"));
    }
}

#[test]
fn selects_the_tenant_by_company() {
    for case in &CASES {
        let source = case.source("", &tenants("companies = ['a']", "companies = ['b']"));
        assert_accepted(case, &source, Some("a"), "ours");
        assert_accepted(case, &source, Some("b"), "theirs");
        for company in [Some("c"), None] {
            assert_unclaimed(case, &source, company);
        }
        let source = case.source("", &tenants("companies = ['a']", ""));
        assert_accepted(case, &source, Some("a"), "ours");
        assert_accepted(case, &source, Some("c"), "theirs");
        assert_unclaimed(case, &source, None);
    }
}

/// An event acts only for the company that it names according to the source's settings.
#[test]
fn acts_for_no_company_without_a_configured_field() {
    let both = tenants("companies = ['a']", "companies = ['b']");
    for case in &CASES {
        let lines = match case.lines {
            "" => "event = { company = 'none' }".to_owned(),
            lines => {
                lines.replace("company = 'body:org'", "company = 'none'").replace("company = 'body:", "user = 'body:")
            }
        };
        let case = Case { lines: lines.leak(), ..*case };
        // Nothing determines the tenant of the events, so the host doesn't start.
        let text = format!("[[source]]\nname = 'in'\npath = '/in'\n{}\n{both}", case.lines());
        let errors = resolve(&text, &[("S", case.secret)]).err().expect(case.scheme).to_string();
        assert!(errors.contains("the events of the source \"in\" don't name a tenant"), "{errors}");
        // With a tenant, its events act for no company, whatever the body contains.
        let source = case.source("tenant = 'ours'", &both);
        let event = case.receive_signed(&source, Some("b")).unwrap();
        assert_eq!((event.tenant.as_str(), event.company_id.as_deref()), ("ours", None), "{}", case.scheme);
    }
}
