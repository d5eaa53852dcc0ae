//! `/packet` and `/flows`: questions that the running packet path answers.

use std::time::Duration;

use axum::{
    Json,
    extract::{RawQuery, State},
    http::StatusCode,
};
use tokio::sync::oneshot;

use super::Context;
use crate::datapath::query::{FlowList, PacketAnswer, Query, Question};

/// It answers between two changes of its tables; one that is only starting does not.
const PATIENCE: Duration = Duration::from_secs(3);
/// Flows in one answer at most.
const FLOWS_MOST: usize = 100_000;

type Refused = (StatusCode, String);

/// `/packet?from=ADDRESS:PORT&to=ADDRESS:PORT&protocol=tcp|udp&opening=true|false`.
pub(super) async fn packet(
    State(context): State<Context>,
    RawQuery(parameters): RawQuery,
) -> Result<Json<PacketAnswer>, Refused> {
    let question = Question::from_parameters(&parameters.unwrap_or_default());
    let question = question.map_err(|problem| (StatusCode::BAD_REQUEST, problem))?;
    ask(&context, |to| Query::Packet(question, to)).await
}

/// `/flows?limit=N`.
pub(super) async fn flows(
    State(context): State<Context>,
    RawQuery(parameters): RawQuery,
) -> Result<Json<FlowList>, Refused> {
    let limit = parameters.as_deref().and_then(|p| p.strip_prefix("limit=")?.parse::<usize>().ok());
    let limit = limit.ok_or((StatusCode::BAD_REQUEST, "give limit=N".to_owned()))?;
    ask(&context, |to| Query::Flows(limit.min(FLOWS_MOST), to)).await
}

async fn ask<T>(
    context: &Context,
    query: impl FnOnce(oneshot::Sender<Result<T, String>>) -> Query,
) -> Result<Json<T>, Refused> {
    let path = context.facts.packet_path().ok_or_else(|| {
        (StatusCode::NOT_FOUND, "this node has no packet path of ours: it runs with --datapath none".to_owned())
    })?;
    let (to, answer) = oneshot::channel();
    let asked = async {
        path.send(query(to)).await.ok()?;
        answer.await.ok()
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Some(Ok(answer))) => Ok(Json(answer)),
        Ok(Some(Err(problem))) => Err((StatusCode::CONFLICT, problem)),
        Ok(None) => Err((StatusCode::SERVICE_UNAVAILABLE, "the packet path ends".into())),
        Err(_) => Err((StatusCode::SERVICE_UNAVAILABLE, "the packet path is still starting".into())),
    }
}
