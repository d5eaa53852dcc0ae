//! The control paths, below `/_emulator/`: for the lab, whose observers live in other namespaces.
//!
//! | | | |
//! |---|---|---|
//! | `GET log` | | every [`Entry`](crate::Entry) so far |
//! | `POST note` | `{"text": …}` | an observation into the log |
//! | `POST faults` | a [`Rule`] | one more |
//! | `DELETE faults` | | none any more |
//! | `PUT tokens` | `["…"]` | the good ones from now on |
//! | `PUT limit` | `{"requests": n, "millis": n}` or `null` | the rate limit |
//! | `POST steer` | what the vendor's module lists | |
//! | `GET state` | | everything that the vendor knows |

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    emulator::Emulator,
    faults::Rule,
    limit::RateLimit,
    message::{Answer, Request},
};

pub(crate) const PREFIX: &str = "/_emulator/";

/// Answers a control request.
pub(crate) fn answer(emulator: &mut Emulator, now: Duration, request: &Request) -> Answer {
    let name = request.path.trim_start_matches(PREFIX);
    let done = match (request.method.as_str(), name) {
        ("GET", "log") => return Answer::json(200, json!(emulator.log())),
        ("GET", "state") => return Answer::json(200, emulator.state()),
        ("POST", "note") => {
            emulator.note(now, request.text("text").unwrap_or_default());
            Ok(())
        }
        ("POST", "faults") => serde_json::from_value::<Rule>(request.body.clone())
            .map(|rule| emulator.inject(rule))
            .map_err(|error| error.to_string()),
        ("DELETE", "faults") => {
            emulator.clear_faults();
            Ok(())
        }
        ("PUT", "tokens") => serde_json::from_value::<Vec<String>>(request.body.clone())
            .map(|tokens| emulator.set_tokens(tokens))
            .map_err(|error| error.to_string()),
        ("PUT", "limit") => {
            emulator.set_limit(limit(&request.body));
            Ok(())
        }
        ("POST", "steer") => emulator.steer(now, &request.body),
        _ => return Answer::json(404, json!({ "error": "no such control path" })),
    };
    match done {
        Ok(()) => Answer::no_content(),
        Err(error) => Answer::json(422, json!({ "error": error })),
    }
}

fn limit(body: &Value) -> Option<RateLimit> {
    let requests = u32::try_from(body.get("requests")?.as_u64()?).ok()?;
    Some(RateLimit::new(requests, Duration::from_millis(body.get("millis")?.as_u64()?)))
}
