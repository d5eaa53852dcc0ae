//! One claim: what the journal has, and what this process knows beyond it.

use std::time::SystemTime;

use super::{Action, Order, SLACK, listing::Listing, patience::Retry};
use crate::{
    provider::{Lease, LeaseState, Marking, Marks, predecessor},
    types::{Claim, ClaimProblem, ClaimState, LeaseId, Reclaim},
};

/// A claim and what is going on with it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) claim: Claim,
    /// An action is under way.
    pub(super) busy: bool,
    /// … and it is a request to the provider.
    pub(super) asks: bool,
    /// The journal has it.
    pub(super) recorded: bool,
    /// The journal says `Sent`, and this process is still to send.
    pub(super) send: bool,
    /// The request had no effect, surely.
    pub(super) void: bool,
    /// The provider says that the lease does not exist.
    pub(super) gone: bool,
    /// The lease was given back.
    pub(super) released: bool,
    /// Our marks were taken off.
    pub(super) unmarked: bool,
    /// The lease that the answer to the request named, or that a list showed for it, where nothing is marked.
    pub(super) granted: Option<LeaseId>,
    pub(super) retry: Retry,
    /// What a person should know, as far as this process has seen.
    pub(super) problem: Option<ClaimProblem>,
    /// Since when it is in this state, or was last confirmed.
    pub(super) since: SystemTime,
}

/// What a step of one claim is decided on.
pub(super) struct Here<'a> {
    pub(super) now: SystemTime,
    pub(super) settings: &'a super::Settings,
    pub(super) listing: Option<&'a Listing>,
    /// Requests to the provider may be made.
    pub(super) open: bool,
    /// Every lease that a request made can be told from the others by now.
    pub(super) told_apart: bool,
    /// Some Service needs the claim or has an address of it.
    pub(super) needed: bool,
    /// No Service has an address of it, and no node announces one.
    pub(super) withdrawn: bool,
    /// What holds up the whole provider.
    pub(super) problem: Option<&'a ClaimProblem>,
}

/// Whose a lease is.
enum Owner {
    Claim,
    Predecessor,
    Other,
    Edited,
}

impl Entry {
    pub(super) fn new(claim: Claim) -> Self {
        Self {
            problem: claim.problem.clone(),
            claim,
            busy: false,
            asks: false,
            recorded: true,
            send: false,
            void: false,
            gone: false,
            released: false,
            unmarked: false,
            granted: None,
            retry: Retry::default(),
            since: SystemTime::UNIX_EPOCH,
        }
    }

    /// Its place in the journal is asked for.
    pub(super) fn unrecorded(claim: Claim) -> Self {
        Self { busy: true, recorded: false, ..Self::new(claim) }
    }

    pub(super) fn is_bound(&self) -> bool {
        matches!(self.claim.state, ClaimState::Bound { .. })
    }

    /// It may still become, or is, an address of its pool.
    pub(super) fn is_alive(&self) -> bool {
        let ends = matches!(
            self.claim.state,
            ClaimState::Releasing { .. } | ClaimState::Lost { .. } | ClaimState::Retained { .. }
        );
        !ends && !self.claim.deleting
    }

    /// When a provider without marks was asked, as long as nobody knows with what effect.
    pub(super) fn unanswered(&self) -> Option<SystemTime> {
        match self.claim.state {
            ClaimState::Sent { at } if !self.busy && !self.send && !self.void && self.granted.is_none() => Some(at),
            _ => None,
        }
    }

    /// It is being asked for.
    pub(super) fn is_asking(&self) -> bool {
        self.busy && self.asks && matches!(self.claim.state, ClaimState::Sent { .. })
    }

    /// The lease that is its own, in the journal or on the way there.
    pub(super) fn holds(&self) -> Option<&LeaseId> {
        self.claim.state.lease().or(self.granted.as_ref())
    }

    /// How near it is to being used.
    pub(super) fn rank(&self) -> u8 {
        match self.claim.state {
            ClaimState::Bound { .. } => 0,
            ClaimState::Pending { .. } => 1,
            ClaimState::Sent { .. } => 2,
            _ => 3,
        }
    }

    /// A list would tell how it goes on.
    pub(super) fn awaits_list(&self) -> bool {
        match self.claim.state {
            ClaimState::Sent { .. } => !self.send && !self.busy,
            ClaimState::Pending { .. } => true,
            _ => false,
        }
    }

    /// The next step, if there is one now.
    pub(super) fn step(&mut self, here: &Here<'_>) -> Option<Action> {
        let action = match self.claim.state.clone() {
            ClaimState::Wanted => self.on_wanted(here),
            ClaimState::Sent { at } => self.on_sent(here, at),
            ClaimState::Pending { .. } => self.on_pending(here),
            ClaimState::Bound { .. } => self.on_bound(here),
            ClaimState::Releasing { since, .. } => self.on_releasing(here, since),
            ClaimState::Lost { .. } => here.withdrawn.then_some(Action::Forget(self.claim.id)),
            ClaimState::Retained { .. } => self.on_retained(here),
        };
        // While a second lease has this claim's mark, only the claim says that it is to go.
        let action = action.filter(|action| !matches!(action, Action::Forget(_)) || self.is_alone(here));
        // A problem alone is worth a write as well: it is what people see.
        action.or_else(|| (self.problem != self.claim.problem).then(|| self.write(self.claim.state.clone())))
    }

    /// The list has no other lease of this claim.
    fn is_alone(&self, here: &Here<'_>) -> bool {
        let own = self.claim.state.lease();
        match here.listing {
            Some(listing) => listing.of_claim(self.claim.id).iter().all(|lease| Some(lease) == own),
            None => own.is_none(),
        }
    }

    fn write(&self, state: ClaimState) -> Action {
        Action::Write(Claim { state, problem: self.problem.clone(), ..self.claim.clone() })
    }

    fn on_wanted(&mut self, here: &Here<'_>) -> Option<Action> {
        if let Some(found) = self.found(here) {
            return Some(found);
        }
        if !here.needed {
            return Some(Action::Forget(self.claim.id));
        }
        if !here.open {
            self.problem = here.problem.cloned().or_else(|| self.problem.take());
            return None;
        }
        let may = here.listing.is_some_and(|listing| !listing.distrusted) && self.retry.may(here.now);
        may.then(|| self.write(ClaimState::Sent { at: here.now }))
    }

    fn on_sent(&mut self, here: &Here<'_>, at: SystemTime) -> Option<Action> {
        if std::mem::take(&mut self.void) {
            self.send = false;
            return Some(self.write(ClaimState::Wanted));
        }
        if self.send {
            return self.send(here, at);
        }
        if let Some(found) = self.found(here) {
            return Some(found);
        }
        let settled = here.listing.is_some_and(|listing| listing.begun >= at + here.settings.timing.settle);
        (settled && here.told_apart).then(|| self.write(ClaimState::Wanted))
    }

    fn send(&mut self, here: &Here<'_>, at: SystemTime) -> Option<Action> {
        if !here.needed {
            return Some(self.write(ClaimState::Wanted));
        }
        if !here.open {
            return None;
        }
        // The clock may have been set back as well.
        if here.now.duration_since(at).is_ok_and(|late| late > SLACK) {
            return Some(self.write(ClaimState::Sent { at: here.now }));
        }
        self.send = false;
        let spec = &self.claim.spec;
        let order = Order {
            family: spec.family,
            kind: spec.kind.clone(),
            region: spec.region.clone(),
            prefix_len: spec.prefix_len,
            marks: self.marks(here),
        };
        Some(Action::Claim { id: self.claim.id, order })
    }

    /// The lease that a list has for a claim without one.
    fn found(&mut self, here: &Here<'_>) -> Option<Action> {
        let listing = here.listing?;
        let id = match here.settings.marking {
            Marking::AtClaim => listing.of_claim(self.claim.id).first(),
            Marking::Never => self.granted.as_ref(),
        };
        let lease = listing.leases.get(id?)?;
        let whose = self.owner(lease, here);
        if !matches!(whose, Owner::Claim) {
            self.problem = Some(edited(lease));
            return None;
        }
        self.problem = None;
        Some(self.write(state_of(lease)))
    }

    fn on_pending(&mut self, here: &Here<'_>) -> Option<Action> {
        if !here.needed || self.claim.deleting {
            // What the predecessor marked and we did not is still the predecessor's.
            let theirs = self.listed(here).is_some_and(|lease| matches!(self.owner(lease, here), Owner::Predecessor));
            return Some(if theirs { Action::Forget(self.claim.id) } else { self.release(here) });
        }
        if std::mem::take(&mut self.gone) {
            self.problem = None;
            return Some(self.write(ClaimState::Wanted));
        }
        let Some(lease) = self.listed(here) else { return self.poll(here) };
        match self.owner(lease, here) {
            Owner::Claim => {}
            Owner::Predecessor => return self.mark(here, Some(self.marks(here))),
            Owner::Other => return Some(self.lost()),
            Owner::Edited => {
                self.problem = Some(edited(lease));
                return None;
            }
        }
        self.problem = waits(lease);
        match state_of(lease) {
            pending @ ClaimState::Pending { .. } => (pending != self.claim.state).then(|| self.write(pending)),
            bound => Some(self.write(bound)),
        }
    }

    fn on_bound(&mut self, here: &Here<'_>) -> Option<Action> {
        if self.claim.deleting || !here.needed {
            return Some(self.release(here));
        }
        if std::mem::take(&mut self.gone) {
            return Some(self.lost());
        }
        let Some(lease) = self.listed(here) else { return self.poll(here) };
        match self.owner(lease, here) {
            Owner::Claim => self.problem = None,
            Owner::Other => return Some(self.lost()),
            Owner::Predecessor | Owner::Edited => self.problem = Some(edited(lease)),
        }
        let moved = lease.network.is_some() && lease.network != self.claim.state.network();
        moved.then(|| self.lost())
    }

    fn on_releasing(&mut self, here: &Here<'_>, since: SystemTime) -> Option<Action> {
        if self.released || std::mem::take(&mut self.gone) || self.unmarked {
            return Some(Action::Forget(self.claim.id));
        }
        let lease = self.claim.state.lease().cloned()?;
        let retain = self.claim.spec.reclaim == Reclaim::Retain;
        if retain && !self.claim.deleting {
            self.problem = Some(retained(&self.claim.state));
            return Some(self.write(ClaimState::Retained { lease, network: self.claim.state.network() }));
        }
        let waited = here.now.duration_since(since).is_ok_and(|waited| waited >= here.settings.timing.withdraw);
        if !waited || !here.withdrawn || !here.open || !self.retry.may(here.now) {
            return None;
        }
        if retain {
            return self.let_go(here);
        }
        Some(Action::Release { id: self.claim.id, lease, marks: self.marks(here) })
    }

    fn on_retained(&mut self, here: &Here<'_>) -> Option<Action> {
        if std::mem::take(&mut self.gone) || self.unmarked {
            return Some(Action::Forget(self.claim.id));
        }
        if self.claim.deleting {
            return if here.withdrawn { self.let_go(here) } else { None };
        }
        match self.listed(here) {
            Some(_) => None,
            None => self.poll(here),
        }
    }

    fn release(&mut self, here: &Here<'_>) -> Action {
        let lease = self.claim.state.lease().cloned().expect("only what has a lease is released");
        self.problem = None;
        self.write(ClaimState::Releasing { lease, network: self.claim.state.network(), since: here.now })
    }

    fn lost(&mut self) -> Action {
        let lease = self.claim.state.lease().cloned().expect("only what had a lease is lost");
        self.problem = Some(ClaimProblem {
            reason: "AddressLost".into(),
            message: "the provider has this address no longer, or another cluster has it; it is withdrawn and another is claimed"
                .into(),
        });
        self.write(ClaimState::Lost { lease, network: self.claim.state.network() })
    }

    /// The lease stays, and its marks go, by us or by a person.
    fn let_go(&self, here: &Here<'_>) -> Option<Action> {
        let bare = self.listed(here).is_some_and(|lease| Marks::read(&lease.tags) == Ok(None));
        if bare { Some(Action::Forget(self.claim.id)) } else { self.mark(here, None) }
    }

    fn mark(&self, here: &Here<'_>, marks: Option<Marks>) -> Option<Action> {
        let lease = self.claim.state.lease().cloned()?;
        let may = here.open && self.retry.may(here.now);
        may.then_some(Action::Mark { id: self.claim.id, lease, marks })
    }

    /// Asks for a lease that the list lacks: only the provider's word for this one lease makes it gone.
    fn poll(&self, here: &Here<'_>) -> Option<Action> {
        let listing = here.listing?;
        let newer = listing.begun > self.since && !listing.distrusted;
        let lease = self.claim.state.lease().cloned()?;
        (newer && here.open && self.retry.may(here.now)).then_some(Action::Poll { id: self.claim.id, lease })
    }

    fn listed<'a>(&self, here: &Here<'a>) -> Option<&'a Lease> {
        here.listing?.leases.get(self.claim.state.lease()?)
    }

    pub(super) fn marks(&self, here: &Here<'_>) -> Marks {
        super::marks(&here.settings.cluster, self.claim.id, &self.claim.spec)
    }

    fn owner(&self, lease: &Lease, here: &Here<'_>) -> Owner {
        let expected = self.marks(here);
        match Marks::read(&lease.tags) {
            _ if here.settings.marking == Marking::Never => Owner::Claim,
            Ok(Some(marks)) if marks == expected => Owner::Claim,
            Ok(Some(marks)) if marks.cluster != expected.cluster => Owner::Other,
            Ok(None) if predecessor::is_of(&lease.tags, &here.settings.cluster) => Owner::Predecessor,
            _ => Owner::Edited,
        }
    }
}

/// The state of a claim that has this lease.
pub(super) fn state_of(lease: &Lease) -> ClaimState {
    match (&lease.state, lease.network) {
        (LeaseState::Ready, Some(network)) => ClaimState::Bound { lease: lease.id.clone(), network },
        (_, network) => ClaimState::Pending { lease: lease.id.clone(), network },
    }
}

fn waits(lease: &Lease) -> Option<ClaimProblem> {
    let (reason, message) = match &lease.state {
        LeaseState::Ready => return None,
        LeaseState::Pending(words) => (
            "ApprovalPending",
            format!(
                "the provider has accepted the request ({words}) and not granted it yet; wait, or ask the provider"
            ),
        ),
        LeaseState::Denied(words) => (
            "Denied",
            format!("the provider denied the request ({words}); ask why, then delete the AddressClaim to ask again"),
        ),
    };
    Some(ClaimProblem { reason: reason.into(), message })
}

fn edited(lease: &Lease) -> ClaimProblem {
    let tags: Vec<&str> = lease.tags.iter().map(String::as_str).collect();
    ClaimProblem {
        reason: "MarksEdited".into(),
        message: format!(
            "the tags of lease {} are {tags:?}, not as they were set, so it will not be released; \
             restore them at the provider",
            lease.id
        ),
    }
}

fn retained(state: &ClaimState) -> ClaimProblem {
    let network = state.network().map_or_else(|| "the lease".into(), |network| network.to_string());
    ClaimProblem {
        reason: "Retained".into(),
        message: format!(
            "{network} stays leased and costs money (reclaimPolicy Retain); delete the AddressClaim to let it go from the cluster"
        ),
    }
}
