//! Drives the claim machines while this process leads: one for each `ProviderConfig`.
//!
//! ```text
//!  leader ─▶ load journal ─▶ machines ◀─ facts (plan)
//!              ▲                │ actions: journal writes in one batch, requests beside each other
//!              └── a write failed, a configuration changed, leadership was lost: everything is made anew
//! ```
//!
//! Nothing here is kept over a change of anything: what matters is in the journal. Cancelling is a crash, which the
//! machine is made for. An answer that takes longer than its deadline is unknown.

pub(crate) mod desk;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use self::desk::{Account, Brought, Desk, Work};
use super::{
    AddressSource, Lease, Provider, SourceError,
    claims::{Action, Outcome},
    journal::{Change, Journal},
    world::Facts,
};
use crate::types::{Claim, ClaimId, ClaimProblem, ProviderConfig};

/// The longest that an answer is waited for.
const DEADLINE: Duration = Duration::from_secs(40);
/// A token is read when this process begins to lead, and comes a moment later.
const TOKENS: Duration = Duration::from_secs(3);
/// Between two looks at the clock: what waits for time only waits so much longer.
const TICK: Duration = Duration::from_millis(500);
/// After a journal that failed: first and longest wait.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Makes the client of a configuration, or says what it lacks.
pub type Connect = Arc<dyn Fn(&ProviderConfig) -> Result<Provider, ClaimProblem> + Send + Sync>;

/// What the driver follows and tells.
pub struct Channels {
    /// The newest facts; `None` before the first plan.
    pub facts: watch::Receiver<Option<Arc<Facts>>>,
    /// Whether this process leads.
    pub leader: watch::Receiver<bool>,
    /// The mark of this cluster, once it is known.
    pub cluster: watch::Receiver<Option<String>>,
    /// What holds up a provider as a whole, by name.
    pub problems: watch::Sender<Arc<BTreeMap<String, ClaimProblem>>>,
    /// Whether leases are to be given back that no claim tells of: then it counts what nodes announce.
    pub strays: watch::Sender<bool>,
}

/// Claims and releases until cancelled, whenever this process leads.
///
/// # Errors
/// Never: what fails is tried again.
pub async fn run(connect: Connect, journal: Arc<dyn Journal>, mut channels: Channels) -> Result<(), Infallible> {
    let mut wait = RETRY.0;
    loop {
        let Some(cluster) = start(&mut channels).await else { return std::future::pending().await };
        let facts = channels.facts.clone();
        let leads = channels.leader.clone();
        let seen = facts.borrow().as_ref().map(|facts| facts.claims.clone()).unwrap_or_default();
        match journal.load().await {
            Err(error) => {
                warn!(error = %chain(&error), "claims wait for their journal");
                sleep(wait).await;
                wait = (wait * 2).min(RETRY.1);
            }
            Ok(claims) => {
                info!(claims = claims.len(), "claiming addresses");
                let facts_now = facts.borrow().clone().unwrap_or_default();
                let (desk, sources) = open(&connect, &cluster, &facts_now, (&claims, &seen));
                let mut term = Term { journal: journal.clone(), desk, sources, tasks: JoinSet::new() };
                match term.run(facts, leads, &channels).await {
                    End::Anew => wait = RETRY.0,
                    End::Journal(error) => {
                        warn!(%error, "the journal of claims is read again");
                        sleep(wait).await;
                        wait = (wait * 2).min(RETRY.1);
                    }
                }
            }
        }
    }
}

/// Waits until there is something to do; `None` where the process is ending.
async fn start(channels: &mut Channels) -> Option<String> {
    channels.leader.wait_for(|leads| *leads).await.ok()?;
    let some = |facts: &Option<Arc<Facts>>| facts.as_ref().is_some_and(|facts| !facts.providers.is_empty());
    channels.facts.wait_for(some).await.ok()?;
    let all = |facts: &Option<Arc<Facts>>| {
        facts.iter().flat_map(|facts| facts.providers.values()).all(|(config, _)| config.missing_secret.is_none())
    };
    let _ = timeout(TOKENS, channels.facts.wait_for(all)).await;
    channels.cluster.wait_for(Option::is_some).await.ok()?.clone()
}

/// Why a term ended.
enum End {
    /// Leadership or the configurations changed.
    Anew,
    /// The journal is unknown.
    Journal(String),
}

/// What the journal holds, and what was seen of it before.
type Journaled<'a> = (&'a [Claim], &'a BTreeSet<ClaimId>);

/// Where the addresses of each provider come from.
type Sources = BTreeMap<String, Arc<dyn AddressSource>>;

fn open(connect: &Connect, cluster: &str, facts: &Facts, (claims, seen): Journaled<'_>) -> (Desk, Sources) {
    let (mut accounts, mut sources) = (BTreeMap::new(), Sources::new());
    for (name, (config, _)) in &facts.providers {
        let source = connect(config).and_then(|provider| provider.addresses.ok_or_else(no_addresses));
        let marking = source.as_ref().map(|source| source.marking()).map_err(Clone::clone);
        accounts.insert(name.clone(), Account::new(cluster, config, marking, claims, random()));
        sources.extend(source.ok().map(|source| (name.clone(), source)));
    }
    (Desk::new(accounts, seen), sources)
}

fn no_addresses() -> ClaimProblem {
    let message = "this provider gives no addresses; take spec.provider out of the pool".into();
    ClaimProblem { reason: "Unsupported".into(), message }
}

/// 64 bits that nobody guesses.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(SystemTime::now())
}

/// The time from a load of the journal to the next.
struct Term {
    journal: Arc<dyn Journal>,
    desk: Desk,
    sources: Sources,
    tasks: JoinSet<Brought>,
}

impl Term {
    async fn run(
        &mut self,
        mut facts: watch::Receiver<Option<Arc<Facts>>>,
        mut leads: watch::Receiver<bool>,
        channels: &Channels,
    ) -> End {
        loop {
            let now = facts.borrow_and_update().clone().unwrap_or_default();
            if !*leads.borrow_and_update() || !self.desk.knows(&now) {
                return End::Anew;
            }
            self.advance(&now);
            self.tell(channels);
            let brought = tokio::select! {
                Some(brought) = self.tasks.join_next() => Some(brought.expect("a request does not panic")),
                Ok(()) = facts.changed() => None,
                Ok(()) = leads.changed() => None,
                () = sleep(TICK) => None,
            };
            if let Some(brought) = brought
                && let Err(error) = self.desk.take(SystemTime::now(), brought)
            {
                return End::Journal(error);
            }
            while let Some(brought) = self.tasks.try_join_next() {
                if let Err(error) = self.desk.take(SystemTime::now(), brought.expect("a request does not panic")) {
                    return End::Journal(error);
                }
            }
        }
    }

    fn advance(&mut self, facts: &Facts) {
        let now = SystemTime::now();
        for work in self.desk.advance(now, facts) {
            match work {
                Work::List(name) => {
                    let Some(source) = self.sources.get(&name).cloned() else { continue };
                    self.tasks.spawn(async move { Brought::List(name, now, list(&*source).await) });
                }
                Work::Ask(name, request) => {
                    let Some(source) = self.sources.get(&name).cloned() else { continue };
                    self.tasks.spawn(async move {
                        let outcome = ask(&*source, &request).await;
                        Brought::Answer(name, Box::new((*request, outcome)))
                    });
                }
                Work::Write(writes) => {
                    let journal = self.journal.clone();
                    self.tasks.spawn(async move {
                        let changes = writes.iter().map(|(_, action)| change(action)).collect();
                        let result = journal.write(changes).await.map_err(|error| chain(&error));
                        Brought::Written(writes, result)
                    });
                }
            }
        }
    }

    fn tell(&self, channels: &Channels) {
        let (now, strays) = (self.desk.problems(), self.desk.has_strays());
        channels.strays.send_if_modified(|told| std::mem::replace(told, strays) != strays);
        channels.problems.send_if_modified(|told| {
            let news = **told != now;
            if news {
                *told = Arc::new(now);
            }
            news
        });
    }
}

/// What the journal is told.
pub(crate) fn change(action: &Action) -> Change {
    match action {
        Action::Write(claim) => Change { id: claim.id, claim: Some(claim.clone()) },
        Action::Forget(id) => Change { id: *id, claim: None },
        request => unreachable!("{request:?} is not for the journal"),
    }
}

/// What one wants to see at night.
fn told(action: &Action) {
    match action {
        Action::Write(claim) => {
            let (state, service) = (claim.state.phase(), claim.spec.service.as_ref().map(ToString::to_string));
            let network = claim.state.network().map(|network| network.to_string());
            match &claim.problem {
                Some(problem) => {
                    warn!(claim = %claim.id, state, service, network, reason = problem.reason, "{}", problem.message);
                }
                None => info!(claim = %claim.id, state, service, network, "claim written"),
            }
        }
        Action::Forget(id) => info!(claim = %id, "claim is over"),
        _ => {}
    }
}

async fn list(source: &dyn AddressSource) -> Result<Vec<Lease>, SourceError> {
    // Many pages may wait for a rate limit between them.
    let started = Instant::now();
    match timeout(DEADLINE * 3, source.list()).await {
        Ok(leases) => leases,
        Err(_) => {
            let message = format!("no complete list within {:?}", started.elapsed());
            Err(SourceError::Unavailable { message, retry_after: None })
        }
    }
}

async fn ask(source: &dyn AddressSource, action: &Action) -> Outcome {
    let answer = async {
        match action {
            Action::Claim { order, .. } => source.claim(order).await.map(Outcome::Claimed),
            Action::Poll { lease, .. } => source.poll(lease).await.map(Outcome::Lease),
            Action::Mark { lease, marks, .. } => source.mark(lease, marks.as_ref()).await.map(|()| Outcome::Done),
            Action::Release { lease, marks, .. } => source.release(lease, marks).await.map(|()| Outcome::Done),
            Action::Write(_) | Action::Forget(_) => unreachable!("the journal's"),
        }
    };
    match timeout(DEADLINE, answer).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::Failed(error),
        Err(_) => Outcome::Failed(SourceError::Ambiguous(format!("no answer within {DEADLINE:?}"))),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
