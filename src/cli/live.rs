//! The live view of `--watch`: the same text as without, on the whole screen, scrolled with the keys, lines that have
//! changed since the last look marked.

use std::{collections::HashSet, future::Future, io, time::Duration};

use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind},
    layout::{Constraint, Layout},
    style::{Color, Modifier, Style},
    text::Line,
    widgets::Paragraph,
};
use tokio::time::Instant;

use crate::term::{Paint, ends};

/// Between two looks at the keys.
const KEYS_EVERY: Duration = Duration::from_millis(50);

/// What is on the screen.
struct Screen {
    lines: Vec<String>,
    /// Lines of the look before.
    before: HashSet<String>,
    healthy: bool,
    /// Why the last look failed; what it showed before stays.
    failed: Option<String>,
    top: usize,
    paint: Paint,
}

/// Shows what `look` gives until q or Ctrl-C; `true` if all was well at the end.
pub(super) async fn show<F: Future<Output = anyhow::Result<(String, bool)>>>(
    pause: Duration,
    look: impl Fn() -> F,
) -> anyhow::Result<bool> {
    // The first error is told before the screen is taken.
    let (text, healthy) = look().await?;
    let mut screen = Screen::new(&text, healthy, Paint::from_environment());
    let mut terminal = ratatui::init();
    let shown = keep_showing(&mut terminal, &mut screen, pause, look).await;
    ratatui::restore();
    shown?;
    Ok(screen.healthy)
}

async fn keep_showing<F: Future<Output = anyhow::Result<(String, bool)>>>(
    terminal: &mut DefaultTerminal,
    screen: &mut Screen,
    pause: Duration,
    look: impl Fn() -> F,
) -> io::Result<()> {
    let mut next = Instant::now() + pause;
    loop {
        terminal.draw(|frame| screen.draw(frame))?;
        while event::poll(Duration::ZERO)? {
            let height = usize::from(terminal.size()?.height);
            if let Event::Key(key) = event::read()?
                && screen.on_key(key, height)
            {
                return Ok(());
            }
        }
        if Instant::now() >= next {
            match look().await {
                Ok((text, healthy)) => screen.update(&text, healthy),
                Err(error) => screen.failed = Some(format!("{error:#}")),
            }
            next = Instant::now() + pause;
        }
        tokio::time::sleep(KEYS_EVERY).await;
    }
}

impl Screen {
    fn new(text: &str, healthy: bool, paint: Paint) -> Self {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        Self { before: lines.iter().cloned().collect(), lines, healthy, failed: None, top: 0, paint }
    }

    fn update(&mut self, text: &str, healthy: bool) {
        let before = std::mem::replace(&mut self.lines, text.lines().map(str::to_owned).collect());
        self.before = before.into_iter().collect();
        (self.healthy, self.failed) = (healthy, None);
        self.top = self.top.min(self.lines.len().saturating_sub(1));
    }

    /// `true` if it ends the view.
    fn on_key(&mut self, key: KeyEvent, height: usize) -> bool {
        if key.kind == KeyEventKind::Release {
            return false;
        }
        let (page, last) = (height.saturating_sub(2).max(1), self.lines.len().saturating_sub(1));
        self.top = match key.code {
            _ if ends(key) => return true,
            KeyCode::Esc => return true,
            KeyCode::Down | KeyCode::Char('j') => self.top + 1,
            KeyCode::Up | KeyCode::Char('k') => self.top.saturating_sub(1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.top + page,
            KeyCode::PageUp => self.top.saturating_sub(page),
            KeyCode::Home => 0,
            KeyCode::End => self.lines.len().saturating_sub(page),
            _ => self.top,
        }
        .min(last);
        false
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let [body, foot] = Layout::vertical([Constraint::Fill(1), Constraint::Length(1)]).areas(frame.area());
        let lines: Vec<Line<'_>> = self.lines.iter().skip(self.top).map(|line| self.painted(line)).collect();
        frame.render_widget(Paragraph::new(lines), body);
        let words = match (&self.failed, self.healthy) {
            (Some(error), _) => (format!(" {error}; above is what was seen last · q ends"), Color::Red),
            (None, true) => (" ok · q ends · ↑ ↓ PgUp PgDn scroll".to_owned(), Color::Green),
            (None, false) => (" something is down · q ends · ↑ ↓ PgUp PgDn scroll".to_owned(), Color::Yellow),
        };
        frame.render_widget(Line::styled(words.0, self.paint.with(words.1)), foot);
    }

    fn painted<'a>(&self, line: &'a str) -> Line<'a> {
        let style = match line {
            heading if is_heading(heading) => Style::new().add_modifier(Modifier::DIM),
            line if is_bad(line) => self.paint.with(Color::Red),
            _ => Style::new(),
        };
        let changed = !line.is_empty() && !self.before.contains(line);
        Line::styled(line, if changed { style.add_modifier(Modifier::BOLD) } else { style })
    }
}

fn is_heading(line: &str) -> bool {
    line.starts_with(char::is_uppercase) && !line.contains(char::is_lowercase)
}

/// A session that is down, an address that is waited for, something to be mended.
fn is_bad(line: &str) -> bool {
    let down = ["Idle", "Connect", "Active", "OpenSent", "OpenConfirm"];
    let is = |state: &&str| line.contains(&format!("  {state}  ")) || line.contains(&format!(" is {state}"));
    down.iter().any(is) || line.contains("  pending: ")
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend, crossterm::event::KeyModifiers};

    use super::*;

    fn shown(screen: &Screen) -> String {
        let mut terminal = Terminal::new(TestBackend::new(60, 5)).expect("a terminal of the test");
        terminal.draw(|frame| screen.draw(frame)).expect("drawn");
        terminal.backend().to_string()
    }

    #[test]
    fn keys_scroll_within_the_text_and_q_ends() {
        let mut screen = Screen::new("a\nb\nc\nd\ne\nf\n", true, Paint { color: false });
        let key = |code| KeyEvent::new(code, KeyModifiers::NONE);
        assert!(!screen.on_key(key(KeyCode::Down), 5) && shown(&screen).contains("\"b"));
        screen.on_key(key(KeyCode::PageDown), 5);
        screen.on_key(key(KeyCode::PageDown), 5);
        assert_eq!(screen.top, 5, "not past the last line");
        screen.on_key(key(KeyCode::Home), 5);
        assert_eq!(screen.top, 0);
        assert!(screen.on_key(key(KeyCode::Char('q')), 5));
    }

    #[test]
    fn failed_look_keeps_what_was_seen() {
        let mut screen = Screen::new("NODE  READY\nn1    yes\n", true, Paint { color: false });
        screen.failed = Some("the daemon does not answer".into());
        let text = shown(&screen);
        assert!(text.contains("n1    yes") && text.contains("does not answer"), "{text}");
        screen.update("NODE  READY\nn1    no\n", false);
        assert!(shown(&screen).contains("something is down"));
        let changed = screen.painted("n1    no").style.add_modifier;
        assert!(
            changed.contains(Modifier::BOLD)
                && !screen.painted("NODE  READY").style.add_modifier.contains(Modifier::BOLD)
        );
    }
}
