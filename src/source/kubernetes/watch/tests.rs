//! The watch against an API server that answers by script. `tests/kubernetes` holds it against a real one.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures::stream;
use serde_json::json;

use super::*;

/// One answer. After its lines a watch stays open where `open`, else it ends.
struct Answer {
    status: u16,
    lines: Vec<Value>,
    open: bool,
}

fn watch<const N: usize>(lines: [Value; N]) -> Answer {
    Answer { status: 200, lines: lines.into(), open: true }
}

fn ended<const N: usize>(lines: [Value; N]) -> Answer {
    Answer { open: false, ..watch(lines) }
}

fn refused(status: u16) -> Answer {
    let details = json!({ "retryAfterSeconds": 1 });
    let body = json!({ "kind": "Status", "status": "Failure", "code": status, "message": "no", "details": details });
    Answer { status, lines: vec![body], open: false }
}

fn event(kind: &str, name: &str, version: u32) -> Value {
    json!({ "type": kind, "object": { "metadata": { "name": name, "resourceVersion": version.to_string() } } })
}

fn synced(version: u32) -> Value {
    let annotations = json!({ "k8s.io/initial-events-end": "true" });
    json!({ "type": "BOOKMARK", "object": { "metadata": { "resourceVersion": version.to_string(), "annotations": annotations } } })
}

fn error(code: u16) -> Value {
    json!({ "type": "ERROR", "object": { "kind": "Status", "status": "Failure", "code": code, "message": "no" } })
}

fn page(names: &[&str], version: u32, next: &str) -> Answer {
    let items: Vec<_> = names.iter().map(|name| json!({ "metadata": { "name": name } })).collect();
    let metadata = json!({ "resourceVersion": version.to_string(), "continue": next });
    ended([json!({ "metadata": metadata, "items": items })])
}

/// The scripted server, the watch that talks to it, and what it said so far.
struct Stage {
    asked: Arc<Mutex<Vec<String>>>,
    events: mpsc::Receiver<((), Event)>,
    task: tokio::task::JoinHandle<()>,
}

type Script = (Arc<Mutex<VecDeque<Answer>>>, Arc<Mutex<Vec<String>>>);

async fn answer(State((script, asked)): State<Script>, request: Request) -> Response {
    asked.lock().expect("no panic").push(request.uri().query().unwrap_or_default().to_owned());
    let answer = script.lock().expect("no panic").pop_front();
    // After the script every watch stays open and silent.
    let Answer { status, lines, open } = answer.unwrap_or_else(|| watch([]));
    let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let first = stream::once(async { Ok::<_, std::convert::Infallible>(Bytes::from(text)) });
    let status = StatusCode::from_u16(status).expect("valid");
    let body = if open { Body::from_stream(first.chain(stream::pending())) } else { Body::from_stream(first) };
    (status, body).into_response()
}

impl Stage {
    fn new<const N: usize>(script: [Answer; N]) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let state: Script = (Arc::new(Mutex::new(script.into())), asked.clone());
        let client = Client::new(Router::new().fallback(answer).with_state(state), "default");
        let target = Target { path: "/api/v1/services".into(), fields: Some("a=b".into()), labels: None };
        let (out, events) = mpsc::channel(16);
        Self { asked, events, task: tokio::spawn(Watch::new(client, target, (), out).run()) }
    }

    /// The next events as words, `applied a`.
    async fn said(&mut self, count: usize) -> Vec<String> {
        let mut said = Vec::new();
        while said.len() < count {
            let event = timeout(Duration::from_secs(20), self.events.recv()).await;
            said.push(words(event.expect("in time").expect("the watch lives").1));
        }
        said
    }

    async fn says(&mut self, expected: &[&str]) {
        assert_eq!(self.said(expected.len()).await, expected);
    }

    async fn silent(&mut self, time: Duration) {
        let event = timeout(time, self.events.recv()).await;
        assert!(event.is_err(), "{:?}", event.map(|e| e.map(|(_, e)| words(e))));
    }

    /// The query of each request so far, once there are so many.
    async fn asked(&self, count: usize) -> Vec<String> {
        while self.asked.lock().expect("no panic").len() < count {
            sleep(Duration::from_millis(5)).await;
        }
        self.asked.lock().expect("no panic").clone()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn words(event: Event) -> String {
    let named = |word: &str, object: Sent| {
        let object: Value = object.read().expect("JSON");
        format!("{word} {}", object["metadata"]["name"].as_str().unwrap_or("?"))
    };
    match event {
        Event::Restart => "restart".into(),
        Event::Listed(value) => named("listed", value),
        Event::Complete => "complete".into(),
        Event::Applied(value) => named("applied", value),
        Event::Deleted(value) => named("deleted", value),
        Event::Absent => "absent".into(),
    }
}

#[tokio::test]
async fn a_streaming_list_becomes_a_watch_and_goes_on_where_it_was_cut() {
    let first = [event("ADDED", "a", 3), synced(5), event("MODIFIED", "b", 6), event("DELETED", "a", 7)];
    let mut stage = Stage::new([ended(first), watch([event("ADDED", "c", 8)])]);
    stage.says(&["restart", "listed a", "complete", "applied b", "deleted a", "applied c"]).await;
    let asked = stage.asked(2).await;
    assert!(asked[0].contains("sendInitialEvents=true") && asked[0].contains("fieldSelector=a%3Db"), "{asked:?}");
    assert!(!asked[0].contains("resourceVersion=0"), "any version may be an old one: {asked:?}");
    assert!(asked[1].contains("resourceVersion=7") && !asked[1].contains("sendInitialEvents"), "{asked:?}");
}

#[tokio::test]
async fn a_server_without_streaming_lists_is_listed_in_pages() {
    for refusal in [refused(422), watch([error(500)]), watch([event("ADDED", "x", 1), error(400)])] {
        let heard = refusal.lines.len();
        let mut stage =
            Stage::new([refusal, page(&["a"], 4, "more"), page(&["b"], 4, ""), watch([event("ADDED", "c", 5)])]);
        let mut said = stage.said(1).await;
        while said.last().is_none_or(|last| last != "applied c") {
            said.extend(stage.said(1).await);
        }
        let tail = &said[said.len() - 5..];
        assert_eq!(tail, ["restart", "listed a", "listed b", "complete", "applied c"], "after {heard} lines: {said:?}");
        assert_eq!(said.iter().filter(|word| *word == "complete").count(), 1, "{said:?}");
        let asked = stage.asked(4).await;
        assert!(asked[2].contains("continue=more") && asked[3].contains("resourceVersion=4"), "{asked:?}");
    }
}

#[tokio::test]
async fn gone_lists_anew_whether_it_comes_as_status_or_as_event() {
    for gone in [refused(410), watch([error(410)])] {
        let mut stage =
            Stage::new([ended([event("ADDED", "a", 3), synced(5)]), gone, watch([event("ADDED", "b", 8), synced(9)])]);
        stage.says(&["restart", "listed a", "complete", "restart", "listed b", "complete"]).await;
    }
}

#[tokio::test]
async fn an_absent_resource_is_told_once_and_watched_when_it_appears() {
    let mut stage = Stage::new([refused(404), refused(404), watch([event("ADDED", "a", 3), synced(5)])]);
    stage.says(&["absent", "restart", "listed a", "complete"]).await;
}

#[tokio::test]
async fn one_404_does_not_make_what_is_known_absent() {
    let mut stage = Stage::new([
        ended([event("ADDED", "a", 3), synced(5)]),
        refused(404),
        watch([event("ADDED", "a", 3), synced(6)]),
    ]);
    stage.says(&["restart", "listed a", "complete", "restart", "listed a", "complete"]).await;
}

#[tokio::test]
async fn a_busy_or_broken_server_changes_nothing() {
    let synced_once = ended([event("ADDED", "a", 3), synced(5)]);
    let mut stage = Stage::new([synced_once, refused(429), refused(503), refused(500), refused(403)]);
    stage.says(&["restart", "listed a", "complete"]).await;
    stage.silent(Duration::from_secs(3)).await;
    let asked = stage.asked(4).await;
    assert!(asked[1].contains("resourceVersion=5") && asked[2].contains("resourceVersion=5"), "{asked:?}");
    assert!(asked[3].contains("limit=1") && !asked[3].contains("watch"), "is it the server that it was? {asked:?}");
}

#[tokio::test]
async fn a_server_that_went_back_to_a_backup_is_listed_anew_and_another_goes_on() {
    let synced_once = || ended([event("ADDED", "a", 3), synced(50)]);
    let back = watch([event("ADDED", "b", 8), synced(21)]);
    let mut stage = Stage::new([synced_once(), refused(503), page(&["b"], 20, ""), back]);
    stage.says(&["restart", "listed a", "complete", "restart", "listed b", "complete"]).await;
    let mut stage = Stage::new([synced_once(), refused(503), page(&["a"], 50, ""), watch([event("ADDED", "b", 51)])]);
    stage.says(&["restart", "listed a", "complete", "applied b"]).await;
}

#[tokio::test]
async fn a_list_that_breaks_off_is_never_taken_for_complete() {
    let whole = watch([event("ADDED", "a", 3), event("ADDED", "b", 4), synced(5)]);
    let mut stage = Stage::new([ended([event("ADDED", "a", 3)]), ended([]), whole]);
    stage.says(&["restart", "listed a", "restart", "restart", "listed a", "listed b", "complete"]).await;
}

#[tokio::test]
async fn an_unreadable_line_costs_a_new_list_and_no_object() {
    let broken = ended([event("ADDED", "a", 3), synced(5), json!("not an event")]);
    let mut stage = Stage::new([broken, watch([event("ADDED", "a", 3), synced(6)])]);
    stage.says(&["restart", "listed a", "complete", "restart", "listed a", "complete"]).await;
}

#[tokio::test]
async fn a_server_that_cannot_select_by_field_is_asked_without() {
    let mut stage = Stage::new([refused(400), refused(400), watch([event("ADDED", "a", 3), synced(5)])]);
    stage.says(&["restart", "restart", "listed a", "complete"]).await;
    let asked = stage.asked(3).await;
    assert!(!asked[2].contains("fieldSelector"), "{asked:?}");
}
