//! `ironcast explain packet`: where this node sends a packet, asked of the program in the kernel.

use std::{fmt::Write as _, net::SocketAddr};

use super::{Output, Target};
use crate::{
    admin::client,
    cli::{print, structured},
    datapath::query::{L4, PacketAnswer, Question},
};

/// Flags of `ironcast explain packet`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The client
    #[arg(value_name = "ADDRESS:PORT")]
    from: SocketAddr,

    /// The Service, at its address
    #[arg(value_name = "VIP:PORT")]
    to: SocketAddr,

    /// Its protocol
    #[arg(long, value_enum, default_value_t = L4::Tcp, value_name = "PROTOCOL")]
    protocol: L4,

    /// The first segment of a TCP connection rather than a later one
    #[arg(long)]
    syn: bool,

    #[command(flatten)]
    target: Target,

    /// Form of the output
    #[arg(long, short, value_enum, default_value_t = Output::Table, value_name = "FORM")]
    output: Output,
}

/// Explains. `false` where the program and the reference say different things.
pub(super) async fn run(args: Args) -> anyhow::Result<bool> {
    let Args { from, to, protocol, syn, target, output } = args;
    let question = Question { from, to, protocol, opening: syn };
    let path = format!("/packet?{}", question.to_parameters());
    let answer: PacketAnswer = client::question(&target.socket, &path).await?;
    let text = match output {
        Output::Table => text(&question, &answer),
        output => structured(&answer, output)?,
    };
    print(&text);
    Ok(answer.agree)
}

fn named(question: &Question) -> String {
    let Question { from, to, protocol, opening } = question;
    let kind = match (protocol, opening) {
        (L4::Tcp, true) => "TCP SYN",
        (L4::Tcp, false) => "TCP segment",
        (L4::Udp, _) => "UDP datagram",
    };
    format!("{kind} from {from} to {to}")
}

fn text(question: &Question, answer: &PacketAnswer) -> String {
    let mut text = format!("{}, as node {} gets it from a router\n", named(question), answer.node);
    let _ = writeln!(text, "  service     {}", answer.service.as_deref().unwrap_or("none has this port"));
    let reason = answer.reason.as_ref().map(|r| format!(" ({r})")).unwrap_or_default();
    let _ = writeln!(text, "  program     {}{reason}", answer.program);
    match answer.agree {
        true => text += "  reference   says the same\n",
        false => drop(writeln!(text, "  reference   {}: THE TWO DIFFER, please report it", answer.reference)),
    }
    for (n, candidate) in answer.candidates.iter().enumerate() {
        let part = if n == 0 { "takes new connections" } else { "may have older ones" };
        let _ = writeln!(text, "  candidate   {} on {}: {part}", candidate.pod, candidate.node);
    }
    let _ = writeln!(text, "  remembered  {}", answer.remembered.as_deref().unwrap_or("no flow on this node"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::query::CandidateAnswer;

    #[test]
    fn answer_names_the_way_and_who_else_may_have_the_flow() {
        let candidate = |pod: &str, node: &str| CandidateAnswer { pod: pod.parse().expect("valid"), node: node.into() };
        let answer = PacketAnswer {
            node: "n1".into(),
            service: Some("shop/web".into()),
            program: "sends it to n2, hop 0".into(),
            reference: "sends it to n2, hop 0".into(),
            agree: true,
            reason: None,
            candidates: vec![candidate("10.1.2.5:8080", "n2"), candidate("10.1.1.5:8080", "n1")],
            remembered: None,
        };
        let [from, to] = ["198.51.100.7:40000", "192.0.2.10:80"].map(|end| end.parse().expect("valid"));
        let question = Question { from, to, protocol: L4::Tcp, opening: false };
        insta::assert_snapshot!(text(&question, &answer), @r"
        TCP segment from 198.51.100.7:40000 to 192.0.2.10:80, as node n1 gets it from a router
          service     shop/web
          program     sends it to n2, hop 0
          reference   says the same
          candidate   10.1.2.5:8080 on n2: takes new connections
          candidate   10.1.1.5:8080 on n1: may have older ones
          remembered  no flow on this node
        ");
    }
}
