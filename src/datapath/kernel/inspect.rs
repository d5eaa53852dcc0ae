//! The programs and their tables asked from outside: frames run through them, flows and counters read.

use std::collections::BTreeMap;

use aya::{
    maps::{Array, HashMap, MapData, PerCpuArray},
    programs::{SchedClassifier, TestRunOptions, TestRunResult, Xdp},
};

use super::{Datapath, DatapathError, FROM_POD, Hook, IN, OUT, read};
use crate::{
    datapath::{
        hash::{FlowKeys, Tuple},
        types::{Flow, FlowKey, Handshake, Handshakes, QUESTION, Reason, ServiceCounters},
    },
    types::ServiceKey,
};

const HANDSHAKES: &str = "handshakes";
const UDP: u8 = 17;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const TCX_NEXT: u32 = u32::MAX;
const TCX_DROP: u32 = 2;
/// Size of `struct __sk_buff`, and where in it the mark stands.
const BUFFER_CONTEXT: usize = 192;
const BUFFER_MARK: usize = 8;
/// Of bundles: how many segments, and their size.
const BUFFER_SEGMENTS: usize = 164;
const BUFFER_SEGMENT_SIZE: usize = 176;
/// Bytes of the mark before a frame that is only asked about.
const QUESTION_LENGTH: usize = size_of_val(&QUESTION);

/// From which side the owner's flows are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// By the client's packet: the VIP, and the pod is told.
    Vip,
    /// By the pod's: the pod, and the VIP is told.
    Pod,
}

impl Side {
    /// Of connections, of datagrams.
    fn tables(self) -> [&'static str; 2] {
        match self {
            Self::Vip => ["flows", "datagrams"],
            Self::Pod => ["replies", "answers"],
        }
    }
}

impl Datapath {
    /// The program for incoming frames, for harnesses that call it.
    pub fn incoming(&self) -> Result<&aya::programs::ProgramFd, DatapathError> {
        let program: &Xdp = self.ebpf.program(IN).and_then(|p| p.try_into().ok()).expect("it is in the object");
        let failed = |e: aya::programs::ProgramError| DatapathError::Program {
            what: "ask for the program for incoming frames".into(),
            cause: e.into(),
        };
        program.fd().map_err(failed)
    }

    /// Runs the program for incoming frames on this one, `repeat` times, without sending anything: the verdict
    /// (an `enum xdp_action`), the frame as it left, and the mean duration.
    pub fn ask(&self, frame: &[u8], repeat: u32) -> Result<Answer, DatapathError> {
        self.run_in(frame, None, repeat)
    }

    /// The same, and nothing is written down: the frame is only asked about. Counters count it.
    pub fn ask_in_vain(&self, frame: &[u8]) -> Result<Answer, DatapathError> {
        if self.options.hook == Hook::Tcx {
            let mut context = [0; BUFFER_CONTEXT];
            context[BUFFER_MARK..BUFFER_MARK + 4].copy_from_slice(&QUESTION.to_ne_bytes());
            return self.run_in(frame, Some(&context), 1);
        }
        let marked = [&QUESTION.to_ne_bytes(), frame].concat();
        let length = marked.len() as u32;
        // `struct xdp_md`: data, data_end, data_meta, and three that the kernel fills in.
        let context: Vec<u8> =
            [QUESTION_LENGTH as u32, length, 0, 0, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut answer = self.run_in(&marked, Some(&context), 1)?;
        answer.frame.drain(..QUESTION_LENGTH.min(answer.frame.len()));
        Ok(answer)
    }

    fn run_in(&self, frame: &[u8], context: Option<&[u8]>, repeat: u32) -> Result<Answer, DatapathError> {
        let what = "run the program for incoming frames";
        let program = self.ebpf.program(IN).expect("it is in the object");
        if self.options.hook == Hook::Xdp {
            let program: &Xdp = program.try_into().expect("an XDP program");
            return run(program, frame, context, repeat, what);
        }
        let program: &SchedClassifier = program.try_into().expect("a classifier");
        let answer = run(program, frame, context, repeat, what)?;
        let verdict = match answer.verdict {
            TCX_NEXT => XDP_PASS,
            TCX_DROP => XDP_DROP,
            _ => XDP_TX,
        };
        Ok(Answer { verdict, ..answer })
    }

    /// The same as [`Datapath::ask`] for the program for replies; the verdict is an `enum tcx_action`.
    pub fn ask_reply(&self, frame: &[u8], repeat: u32) -> Result<Answer, DatapathError> {
        let program: &SchedClassifier =
            self.ebpf.program(OUT).and_then(|p| p.try_into().ok()).expect("it is in the object");
        run(program, frame, None, repeat, "run the program for replies")
    }

    /// The same for the program for what a pod sends, under `bypass`; `segments`: so many of one size in a buffer.
    pub fn ask_from_pod(&self, frame: &[u8], segments: Option<(u32, u32)>) -> Result<Answer, DatapathError> {
        let program: &SchedClassifier =
            self.ebpf.program(FROM_POD).and_then(|p| p.try_into().ok()).expect("it is in the object");
        let mut context = [0; BUFFER_CONTEXT];
        if let Some((count, size)) = segments {
            context[BUFFER_SEGMENTS..BUFFER_SEGMENTS + 4].copy_from_slice(&count.to_ne_bytes());
            context[BUFFER_SEGMENT_SIZE..BUFFER_SEGMENT_SIZE + 4].copy_from_slice(&size.to_ne_bytes());
        }
        run(program, frame, Some(&context), 1, "run the program for what a pod sends")
    }

    /// Packets by what became of them, all CPUs together.
    pub fn reasons(&self) -> Result<BTreeMap<Reason, u64>, DatapathError> {
        let counters: PerCpuArray<&MapData, u64> =
            PerCpuArray::try_from(self.map("counters")).map_err(read("counters"))?;
        let count = |&reason: &Reason| {
            let values = counters.get(&(reason as u32), 0).map_err(read("counters"))?;
            Ok((reason, values.iter().sum()))
        };
        Reason::ALL.iter().map(count).collect()
    }

    /// Counters of each Service, all CPUs together.
    pub fn service_counters(&self) -> Result<BTreeMap<ServiceKey, ServiceCounters>, DatapathError> {
        let name = "service_counters";
        let map: PerCpuArray<&MapData, ServiceCounters> = PerCpuArray::try_from(self.map(name)).map_err(read(name))?;
        let mut all = BTreeMap::new();
        for (key, n) in self.services.iter().filter(|(_, n)| *n < self.options.services) {
            let values = map.get(&n, 0).map_err(read(name))?;
            let sum = values.iter().fold(ServiceCounters::default(), |a, b| a + *b);
            all.insert(key.clone(), sum);
        }
        Ok(all)
    }

    /// The flows as one side sees them, connections and datagrams.
    pub fn flows(&self, side: Side) -> Result<Vec<(FlowKey, Flow)>, DatapathError> {
        Ok(self.some_flows(side, usize::MAX)?.0)
    }

    /// The first so many of them, and whether there are more.
    pub fn some_flows(&self, side: Side, limit: usize) -> Result<(Vec<(FlowKey, Flow)>, bool), DatapathError> {
        let mut found = Vec::new();
        for table in side.tables() {
            for entry in self.flow_map(table)?.iter() {
                if found.len() == limit {
                    return Ok((found, true));
                }
                found.push(entry.map_err(read(table))?);
            }
        }
        Ok((found, false))
    }

    /// One flow.
    pub fn flow(&self, side: Side, key: &FlowKey) -> Result<Option<Flow>, DatapathError> {
        let [connections, datagrams] = side.tables();
        let table = if key.protocol == UDP { datagrams } else { connections };
        match self.flow_map(table)?.get(key, 0) {
            Ok(flow) => Ok(Some(flow)),
            Err(aya::maps::MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(read(table)(error)),
        }
    }

    /// Handshakes under way.
    pub fn handshakes(&self) -> Result<Vec<Handshake>, DatapathError> {
        let mut all = Vec::new();
        for bucket in self.handshake_map()?.iter() {
            all.extend(taken(&bucket.map_err(read(HANDSHAKES))?));
        }
        Ok(all)
    }

    /// The handshake of a connection.
    pub fn handshake(&self, of: &Tuple) -> Result<Option<Handshake>, DatapathError> {
        let map = self.handshake_map()?;
        let config = self.arrays.head.load();
        let bucket = FlowKeys(config.flow_key).handshake_bucket(of.client, of.client_port, map.len());
        let bucket = map.get(&bucket, 0).map_err(read(HANDSHAKES))?;
        let is = |h: &Handshake| (h.client, h.vip) == (of.client.into(), of.vip.into());
        let ports = (of.client_port.to_be(), of.vip_port.to_be());
        Ok(taken(&bucket).find(|h| is(h) && (h.client_port, h.vip_port) == ports))
    }

    fn handshake_map(&self) -> Result<Array<&MapData, Handshakes>, DatapathError> {
        Array::try_from(self.map(HANDSHAKES)).map_err(read(HANDSHAKES))
    }

    fn flow_map(&self, table: &'static str) -> Result<HashMap<&MapData, FlowKey, Flow>, DatapathError> {
        HashMap::try_from(self.map(table)).map_err(read(table))
    }
}

/// What stands in a bucket.
fn taken(bucket: &Handshakes) -> impl Iterator<Item = Handshake> {
    bucket.of.into_iter().zip(bucket.tag).filter(|(_, tag)| *tag != 0).map(|(handshake, _)| handshake)
}

/// What became of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The program's return value.
    pub verdict: u32,
    /// The frame as it left.
    pub frame: Vec<u8>,
    /// Mean duration of a run.
    pub duration: std::time::Duration,
}

fn run(
    program: &impl for<'a> Runnable<'a>,
    frame: &[u8],
    context: Option<&[u8]>,
    repeat: u32,
    what: &str,
) -> Result<Answer, DatapathError> {
    let mut out = vec![0; frame.len() + 256];
    let (data_in, data_out) = (Some(frame), Some(&mut out[..]));
    let options = TestRunOptions { data_in, data_out, ctx_in: context, repeat, ..Default::default() };
    let failed = |e: aya::programs::ProgramError| DatapathError::Program { what: what.to_string(), cause: e.into() };
    let result = program.test_run(options).map_err(failed)?;
    out.truncate(result.data_size_out as usize);
    Ok(Answer { verdict: result.return_value, frame: out, duration: result.duration })
}

/// The programs that take frames.
trait Runnable<'a>: aya::programs::TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult> {}
impl<'a, P: aya::programs::TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult>> Runnable<'a> for P {}
