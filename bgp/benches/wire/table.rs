//! The table: medians of rounds in which the codecs take turns, so that a machine that slows down slows all of them.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use super::{Codec, Routes, codecs, counting};

const ROUNDS: usize = 301;
/// How long one codec works at a stretch: far less than the time slice of a scheduler, so that on a busy machine most
/// turns are whole.
const TURN: Duration = Duration::from_micros(300);

/// One codec in one column.
#[derive(Clone, Copy, Default)]
struct Cell {
    nanos: f64,
    allocations: f64,
}

pub(crate) fn print(columns: &[Routes]) {
    let cells: Vec<Vec<[Cell; 2]>> = columns.iter().map(|routes| measure(codecs(routes))).collect();
    let names: Vec<_> = codecs(&columns[0]).iter().map(|c| c.name).collect();
    for (which, verb) in ["parse", "encode"].into_iter().enumerate() {
        println!("\n{verb}, ns per UPDATE (ratio to the floor, allocations)");
        print!("{:<16}", "");
        columns.iter().for_each(|c| print!("{:>26}", c.name));
        println!();
        for (row, name) in names.iter().enumerate() {
            print!("{name:<16}");
            for column in &cells {
                let Cell { nanos, allocations } = column[row][which];
                let ratio = nanos / column[0][which].nanos;
                print!("{:>26}", format!("{nanos:.1} ({ratio:.2}, {allocations:.0})"));
            }
            println!();
        }
    }
    verdict(&cells, &names);
}

/// What must hold of ours, the second row: no allocation, and ahead of every other codec. The factor to the floor is
/// the target of 2.
fn verdict(cells: &[Vec<[Cell; 2]>], names: &[&str]) {
    let all = || cells.iter().flat_map(|column| (0..2).map(move |which| (column, which)));
    let worst = all().map(|(column, which)| column[1][which].nanos / column[0][which].nanos).fold(0.0, f64::max);
    let behind = all().flat_map(|(column, which)| {
        (2..names.len()).filter(move |row| column[*row][which].nanos < column[1][which].nanos)
    });
    let behind = behind.map(|row| names[row]).collect::<Vec<_>>();
    println!("\nours: at most {worst:.2} times the floor, slower than others in {} columns {behind:?}", behind.len());
    assert!(all().all(|(column, which)| column[1][which].allocations == 0.0), "ours allocates");
}

fn measure(mut codecs: Vec<Codec<'_>>) -> Vec<[Cell; 2]> {
    let turns: Vec<[u32; 2]> = codecs.iter_mut().map(|c| [turn(&mut c.parse), turn(&mut c.encode)]).collect();
    let mut rounds = vec![[const { Vec::new() }; 2]; codecs.len()];
    for _ in 0..ROUNDS {
        for ((codec, turns), cells) in codecs.iter_mut().zip(&turns).zip(&mut rounds) {
            cells[0].push(run(turns[0], &mut codec.parse));
            cells[1].push(run(turns[1], &mut codec.encode));
        }
    }
    rounds.into_iter().map(|cells| cells.map(median)).collect()
}

/// How many calls make a turn.
fn turn<T>(work: &mut impl FnMut() -> T) -> u32 {
    let mut calls = 16;
    loop {
        let took = run(calls, work).nanos * f64::from(calls);
        if took > TURN.as_nanos() as f64 / 2.0 {
            return calls;
        }
        calls *= 2;
    }
}

fn run<T>(calls: u32, work: &mut impl FnMut() -> T) -> Cell {
    let (allocations, start) = (counting::calls(), Instant::now());
    for _ in 0..calls {
        black_box(work());
    }
    let nanos = start.elapsed().as_nanos() as f64 / f64::from(calls);
    Cell { nanos, allocations: (counting::calls() - allocations) as f64 / f64::from(calls) }
}

fn median(mut cells: Vec<Cell>) -> Cell {
    cells.sort_by(|a, b| a.nanos.total_cmp(&b.nanos));
    cells[cells.len() / 2]
}
