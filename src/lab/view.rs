//! The terminal view: sessions, addresses with their next hops, requests per pod, expectations. Drawn a few
//! times a second from what others watch; it decides nothing and owns nothing but the screen.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use ratatui::{
    Frame,
    crossterm::event::{self, Event},
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Bar, BarChart, BarGroup, Block, Paragraph, Row, Table},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    client::{Tally, lock},
    observe::Seen,
    report::{Expectation, Progress},
    site::Site,
};
use crate::{
    term::{Paint, ends},
    types::NodeState,
};

const FRAME_EVERY: Duration = Duration::from_millis(100);

/// Everything that is drawn.
pub(crate) struct Watched {
    pub(crate) title: String,
    pub(crate) site: Site,
    pub(crate) seen: watch::Receiver<Arc<Seen>>,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) requests: Arc<Mutex<Tally>>,
    pub(crate) paint: Paint,
}

impl Watched {
    /// How much there is to show: routes first, then expectations.
    pub(crate) fn much(&self) -> (usize, usize) {
        let hops = self.seen.borrow().routes.values().map(BTreeSet::len).sum();
        (hops, self.progress.borrow().expectations.len())
    }
}

/// A view that is on the screen.
pub(crate) struct View {
    end: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl View {
    /// Takes the screen.
    pub(crate) fn start(watched: Watched, interrupted: CancellationToken) -> Self {
        let end = CancellationToken::new();
        Self { task: tokio::spawn(run(watched, end.clone(), interrupted)), end }
    }

    /// Gives the screen back.
    pub(crate) async fn end(self) {
        self.end.cancel();
        let _ = self.task.await;
    }
}

/// Owns the screen until `end`; a key press of q or Ctrl-C sets `interrupted`.
async fn run(watched: Watched, end: CancellationToken, interrupted: CancellationToken) {
    let mut terminal = ratatui::init();
    let started = Instant::now();
    let mut tick = tokio::time::interval(FRAME_EVERY);
    while !end.is_cancelled() {
        tick.tick().await;
        while event::poll(Duration::ZERO).unwrap_or(false) {
            if let Ok(Event::Key(key)) = event::read()
                && ends(key)
            {
                interrupted.cancel();
            }
        }
        if terminal.draw(|frame| screen(frame, &watched, started.elapsed())).is_err() {
            // The terminal is gone; the lab goes on without a view until its signal comes.
            break;
        }
    }
    ratatui::restore();
}

/// The whole view.
pub(crate) fn screen(frame: &mut Frame<'_>, watched: &Watched, age: Duration) {
    let (seen, progress) = (watched.seen.borrow().clone(), watched.progress.borrow().clone());
    let requests = lock(&watched.requests).clone();
    let nodes = u16::try_from(watched.site.nodes.len()).unwrap_or(u16::MAX).saturating_add(3);
    let [title, top, middle, bottom, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(nodes.max(8)),
        Constraint::Fill(2),
        Constraint::Fill(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let [left, right] = Layout::horizontal([Constraint::Percentage(55), Constraint::Percentage(45)]).areas(top);
    let paint = watched.paint;
    let heading = format!(" {}  {:.1} s  (q ends)", watched.title, age.as_secs_f64());
    frame.render_widget(Line::styled(heading, Style::new().add_modifier(Modifier::BOLD)), title);
    frame.render_widget(sessions(watched, &seen, paint), left);
    frame.render_widget(pods(&requests, right), right);
    frame.render_widget(services(&seen), middle);
    frame.render_widget(expectations(&progress, bottom, paint), bottom);
    let note = progress.notes.last().map_or("", String::as_str);
    frame.render_widget(Line::raw(format!(" {note}")), foot);
}

fn judged(paint: Paint, ok: bool) -> Style {
    paint.with(if ok { Color::Green } else { Color::Red })
}

fn sessions(watched: &Watched, seen: &Seen, paint: Paint) -> Table<'static> {
    let rows = watched.site.nodes.iter().map(|node| {
        let Some(state) = seen.nodes.get(&node.name).and_then(Option::as_ref) else {
            return Row::new([node.name.clone(), "no answer".to_owned()]).style(judged(paint, false));
        };
        let role = match (state.draining, state.leader) {
            (true, _) => "draining",
            (false, true) => "leader",
            (false, false) => "runs",
        };
        let all_up = state.sessions.iter().all(|s| s.state == "Established") && !state.sessions.is_empty();
        let cells = [node.name.clone(), role.to_owned(), session(state, true), session(state, false)];
        let routes = state.sessions.iter().map(|s| s.advertised).sum::<usize>().to_string();
        Row::new(cells.into_iter().chain([routes])).style(judged(paint, all_up))
    });
    let widths = [5, 9, 12, 12, 6].map(Constraint::Length);
    let header = Row::new(["node", "daemon", "IPv4", "IPv6", "sends"]).style(Style::new().add_modifier(Modifier::DIM));
    Table::new(rows, widths).header(header).block(Block::bordered().title(" BGP sessions "))
}

fn session(state: &NodeState, v4: bool) -> String {
    let session = state.sessions.iter().find(|s| s.address.is_ipv4() == v4);
    session.map_or_else(|| "-".to_owned(), |s| s.state.clone())
}

fn pods(requests: &Tally, area: Rect) -> BarChart<'static> {
    let bars: Vec<Bar<'_>> = requests
        .pods
        .iter()
        .take(usize::from(area.height.saturating_sub(2)))
        .map(|(pod, n)| Bar::default().value(*n).label(Line::raw(format!("{pod:>8}"))).text_value(n.to_string()))
        .collect();
    let title = format!(" answers per pod, {} failed ", requests.failed());
    BarChart::default()
        .direction(ratatui::layout::Direction::Horizontal)
        .bar_width(1)
        .bar_gap(0)
        .data(BarGroup::default().bars(&bars))
        .block(Block::bordered().title(title))
}

fn services(seen: &Seen) -> Table<'static> {
    let known: BTreeSet<String> = seen.alive().flat_map(|state| &state.services).map(|s| s.service.clone()).collect();
    let rows: Vec<Row<'_>> = known
        .into_iter()
        .flat_map(|service| seen.addresses(&service).into_iter().map(move |ip| (service.clone(), ip)))
        .map(|(service, ip)| {
            let hops = Vec::from_iter(seen.next_hops(ip));
            let hops = if hops.is_empty() { "no route".to_owned() } else { hops.join(" ") };
            Row::new([service, ip.to_string(), hops])
        })
        .collect();
    let widths = [Constraint::Length(22), Constraint::Length(24), Constraint::Min(10)];
    let header = Row::new(["service", "address", "next hops in the router's kernel"]);
    let header = header.style(Style::new().add_modifier(Modifier::DIM));
    Table::new(rows, widths).header(header).block(Block::bordered().title(" Services "))
}

fn expectations(progress: &Progress, area: Rect, paint: Paint) -> Paragraph<'static> {
    let room = usize::from(area.height.saturating_sub(2));
    let from = progress.expectations.len().saturating_sub(room);
    let lines: Vec<Line<'_>> = progress.expectations[from..].iter().map(|e| expectation(e, paint)).collect();
    Paragraph::new(lines).block(Block::bordered().title(" expectations "))
}

fn expectation(expectation: &Expectation, paint: Paint) -> Line<'static> {
    let Expectation { name, expected, seen, ok, waiting } = expectation;
    match waiting {
        Some(waiting) => {
            let clock =
                format!(" {:>4.1}/{:.0} s ", waiting.since.elapsed().as_secs_f64(), waiting.bound.as_secs_f64());
            let text = format!("{name}: {expected}; {seen}");
            Line::from(vec![Span::styled(clock, paint.with(Color::Yellow)), Span::raw(text)])
        }
        None if *ok => {
            Line::from(vec![Span::styled(" ok   ", judged(paint, true)), Span::raw(format!("{name}: {seen}"))])
        }
        None => {
            let text = format!("{name}: expected {expected}; seen {seen}");
            Line::from(vec![Span::styled(" FAIL ", judged(paint, false)), Span::raw(text)])
        }
    }
}
