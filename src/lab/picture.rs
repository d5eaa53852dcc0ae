//! A picture of the terminal view as SVG: the moment when it had the most to show.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::{Buffer, Cell},
    style::{Color, Modifier},
};
use tokio_util::sync::CancellationToken;

use super::view::{self, Watched};

const COLUMNS: u16 = 112;
const ROWS: u16 = 36;
/// Of a character, in pixels.
const WIDTH: f64 = 8.4;
const HEIGHT: f64 = 16.5;
const EVERY: Duration = Duration::from_millis(100);
const GROUND: &str = "#11151b";
const INK: &str = "#d8dee9";

/// Watches until its end.
pub(crate) struct Picture {
    end: CancellationToken,
    task: tokio::task::JoinHandle<Buffer>,
}

impl Picture {
    pub(crate) fn start(watched: Watched) -> Self {
        let end = CancellationToken::new();
        Self { task: tokio::spawn(watch(watched, end.clone())), end }
    }

    /// The picture.
    ///
    /// # Errors
    /// It could not be drawn.
    pub(crate) async fn end(self) -> anyhow::Result<String> {
        self.end.cancel();
        Ok(svg(&self.task.await?))
    }
}

async fn watch(watched: Watched, end: CancellationToken) -> Buffer {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(COLUMNS, ROWS));
    let started = Instant::now();
    let (mut best, mut most) = (Buffer::default(), (0, 0));
    while !end.is_cancelled() {
        let much = watched.much();
        if much >= most {
            let Ok(_) = terminal.draw(|frame| view::screen(frame, &watched, started.elapsed()));
            (best, most) = (terminal.backend().buffer().clone(), much);
        }
        tokio::select! {
            () = end.cancelled() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    best
}

fn svg(buffer: &Buffer) -> String {
    let area = buffer.area;
    let (width, height) = (f64::from(area.width) * WIDTH + 24.0, f64::from(area.height) * HEIGHT + 24.0);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" \
         aria-label=\"The live view of ironcast lab\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"10\" fill=\"{GROUND}\"/>\n\
         <g font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" font-size=\"14\" fill=\"{INK}\">\n"
    );
    for y in 0..area.height {
        let row: Vec<&Cell> = (0..area.width).filter_map(|x| buffer.cell((x, y))).collect();
        let mut x = 0;
        for run in row.chunk_by(|a, b| look(a) == look(b)) {
            let words: String = run.iter().map(|cell| cell.symbol()).collect();
            if !words.trim().is_empty() {
                let (left, base) = (12.0 + f64::from(x) * WIDTH, 12.0 + f64::from(y) * HEIGHT + 13.0);
                let length = f64::from(u16::try_from(run.len()).unwrap_or(u16::MAX)) * WIDTH;
                let _ = writeln!(
                    text,
                    "<text x=\"{left:.1}\" y=\"{base:.1}\" textLength=\"{length:.1}\"{}>{}</text>",
                    look(run[0]),
                    escaped(&words)
                );
            }
            x += u16::try_from(run.len()).unwrap_or(u16::MAX);
        }
    }
    text + "</g>\n</svg>\n"
}

/// Attributes of a cell's text.
fn look(cell: &Cell) -> String {
    let color = match cell.fg {
        Color::Green => " fill=\"#5fd39e\"",
        Color::Red => " fill=\"#ff8a80\"",
        Color::Yellow => " fill=\"#f0b95a\"",
        _ => "",
    };
    let weight = if cell.modifier.contains(Modifier::BOLD) { " font-weight=\"700\"" } else { "" };
    let dim = if cell.modifier.contains(Modifier::DIM) { " opacity=\"0.6\"" } else { "" };
    format!("{color}{weight}{dim}")
}

/// Blanks are kept by being no blanks: renderers fold those.
fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace(' ', "\u{a0}")
}

#[cfg(test)]
mod tests {
    use ratatui::{layout::Rect, style::Style};

    use super::*;

    #[test]
    fn picture_keeps_words_colours_and_places() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 20, 2));
        buffer.set_string(2, 1, "up & <so>", Style::new().fg(Color::Green).add_modifier(Modifier::BOLD));
        let picture = svg(&buffer);
        let line = picture.lines().find(|line| line.contains("up")).expect("the words");
        assert!(
            line.contains("up\u{a0}&amp;\u{a0}&lt;so&gt;") && line.contains("#5fd39e") && line.contains("700"),
            "{line}"
        );
        assert!(line.contains("x=\"28.8\" y=\"41.5\""), "{line}");
    }
}
