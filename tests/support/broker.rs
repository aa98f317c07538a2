//! One node of a real Apache Kafka in KRaft mode: broker and controller, with an open listener and one that asks for a
//! password.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{Tied, cache, free_port, wait_for_port};

/// Ports of a node.
#[derive(Clone, Copy)]
pub(super) struct Ports {
    pub open: u16,
    pub guarded: u16,
    pub controller: u16,
}

impl Ports {
    pub(super) fn free() -> Self {
        Self { open: free_port(), guarded: free_port(), controller: free_port() }
    }
}

pub(super) struct Broker {
    server: Option<Tied>,
    data: tempfile::TempDir,
    port: u16,
}

impl Broker {
    /// The node `id` of the cluster whose nodes have `all` ports. It is not started.
    pub(super) fn new(id: usize, all: &[Ports]) -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let Ports { open, guarded, controller } = all[id - 1];
        let voters: Vec<_> = (1..).zip(all).map(|(id, ports)| format!("{id}@127.0.0.1:{}", ports.controller)).collect();
        let (voters, replicas, min_isr) = (voters.join(","), all.len(), all.len().min(2));
        let text = format!(
            "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={voters}\n\
             listeners=OPEN://127.0.0.1:{open},GUARDED://127.0.0.1:{guarded},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=OPEN://127.0.0.1:{open},GUARDED://127.0.0.1:{guarded}\n\
             listener.security.protocol.map=OPEN:PLAINTEXT,GUARDED:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=OPEN\n\
             broker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=500\n\
             default.replication.factor={replicas}\nmin.insync.replicas={min_isr}\n\
             sasl.enabled.mechanisms=PLAIN\nlistener.name.guarded.plain.sasl.jaas.config=\
             org.apache.kafka.common.security.plain.PlainLoginModule required user_tokenwarden=\"right\";\n\
             log.dirs={}\nauto.create.topics.enable=false\ngroup.initial.rebalance.delay.ms=0\n\
             offsets.topic.num.partitions=3\noffsets.topic.replication.factor={replicas}\n\
             transaction.state.log.replication.factor={replicas}\ntransaction.state.log.min.isr={min_isr}\n\
             authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             super.users=User:ANONYMOUS\nallow.everyone.if.no.acl.found=true\n",
            data.path().join("logs").display()
        );
        let properties = data.path().join("server.properties");
        std::fs::write(&properties, text).expect("the broker's settings");
        let formatted = java()
            .args(["kafka.tools.StorageTool", "format", "-t", "bG9vcGJhY2stdGVzdHMtMQ", "-c"])
            .arg(&properties)
            .output();
        let formatted = formatted.expect("java runs");
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
        Self { server: None, data, port: open }
    }

    /// Starts the process, unless it runs.
    pub(super) fn start(&mut self) {
        if self.server.is_some() {
            return;
        }
        let java = java();
        let mut arguments: Vec<_> = java.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
        let properties = self.data.path().join("server.properties").display().to_string();
        arguments.extend(["kafka.Kafka".to_owned(), properties]);
        self.server = Some(Tied::start("java", &arguments.iter().map(String::as_str).collect::<Vec<_>>(), &self.log()));
    }

    /// Waits until it listens.
    pub(super) fn wait(&self) {
        wait_for_port(self.port, &self.log());
    }

    /// Kills the process; what it has acknowledged stays on disk.
    pub(super) fn kill(&mut self) {
        self.server = None;
    }

    pub(super) fn signal(&self, name: &str) {
        self.server.as_ref().expect("a broker").signal(name);
    }

    pub(super) fn log(&self) -> PathBuf {
        self.data.path().join("kafka.log")
    }
}

/// Java with Kafka's classes, quick to start rather than to run.
pub(crate) fn java() -> Command {
    let mut java = Command::new("java");
    java.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m", "-cp"]);
    java.arg(format!("{}/*", libraries().display()));
    java
}

fn libraries() -> PathBuf {
    let libraries = cache().join("kafka/libs");
    assert!(has_jar(&libraries), "no Kafka in {}: run deploy/setup.sh", libraries.display());
    libraries
}

fn has_jar(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    entries.iter().any(|entry| entry.path().extension().is_some_and(|extension| extension == "jar"))
}
