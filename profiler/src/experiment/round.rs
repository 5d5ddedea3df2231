//! A round of configurations that are alive at once.

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand_pcg::Pcg64;

use super::{
    lab::{Lab, MOST_PHASES, PROLONGED, SampleQuota, Stages, account_since, needed},
    quiet::Accounts,
    raw::{Either, Named},
    schedule::{Turn, parts},
    store::Brought,
    together::{Given, Member, Together, devices_met},
};
use crate::{
    cgroup,
    counts::{Costs, DeviceInfo, PhaseKind, Repetition},
    engine,
    environment::{
        hooks_in, hooks_of,
        load::{Load, Watched},
        setup,
    },
    error::{Error, Result},
    interrupt,
    probes::{Labels, Names},
    process,
    workload::follows,
};

/// Configurations that have turned out to work, or to be limited, while they rest: with the reason.
type Unfit = Vec<(String, String)>;

/// What all members of a round share.
struct Shared {
    disturbances: Vec<String>,
    virtax_cpu_ns: u64,
    virtax_wall_ns: u64,
}

/// What was measured of one member.
struct Measured {
    phases: Vec<Either>,
    costs: Costs,
}

impl Lab<'_> {
    /// One repetition of each, all alive at once. Who turns out to be unfit for that is measured alone, now and later.
    pub(super) fn together(&mut self, turns: &[Turn<'_>], round: u32) -> Result<Vec<Brought>> {
        let unfit = match self.measure_together(turns, round)? {
            Ok(brought) => return Ok(brought),
            Err(unfit) => unfit,
        };
        for (name, why) in unfit {
            log::warn!("`{name}` is measured alone, in rounds: {why}");
            self.resting.remove(&name);
        }
        let mut brought = Vec::with_capacity(turns.len());
        let resting = self.resting.clone();
        for part in parts(turns, |configuration| resting.contains(&configuration.to_string())) {
            brought.extend(super::schedule::Repeater::repeat(self, &part, round)?);
        }
        let place = |brought: &Brought| {
            turns.iter().position(|turn| turn.configuration.to_string() == brought.repetition.configuration)
        };
        brought.sort_by_key(place);
        Ok(brought)
    }

    fn measure_together(&mut self, turns: &[Turn<'_>], round: u32) -> Result<std::result::Result<Vec<Brought>, Unfit>> {
        log::debug!("step: probes for {} configurations, round {}", turns.len(), round + 1);
        let mut probes = self.take_probes()?;
        let dispatch_ns = self.dispatch_ns(&mut probes)?;
        let (mut members, names) = self.start_all(turns)?;
        let limited: Unfit = members.iter().filter_map(limits_of).collect();
        if !limited.is_empty() {
            self.probes = Some(probes);
            return Ok(Err(limited));
        }
        let connections = follows(self.plan.workload)?.tokens(&self.plan.settings);
        let families = members.iter().flat_map(|member| {
            member.parties.roles().processes().chain(member.server.companions()).collect::<Vec<_>>()
        });
        let watched = Watched { families: families.collect(), cpus: self.cpus.clone() };
        let accounts = Accounts::new(&self.cpus, watched.families.iter().copied());
        log::debug!("step: warm-up");
        let random = Pcg64::seed_from_u64(self.plan.spec.seed.wrapping_mul(0x9E37_79B9).wrapping_add(u64::from(round)));
        let sampling = self.sampling.clone();
        let mut work = std::mem::take(&mut self.work);
        let given = Given {
            names: &names,
            pairs: self.plan.pairs_of(turns.iter().map(|turn| turn.configuration)),
            connections,
            sampling: &sampling,
            shortest: self.plan.spec.turns.window().unwrap_or_default(),
            random,
            accounts,
            work: &mut work,
        };
        let mut together = Together::warm_up(&mut probes, &mut members, given)?;
        let restless = together.restless()?;
        if !restless.is_empty() {
            let why = |share: f64| format!("its server uses {:.1} % of a CPU while nobody asks it", 100.0 * share);
            let unfit = restless.into_iter().map(|(index, share)| (members[index].name.clone(), why(share))).collect();
            self.probes = Some(probes);
            return Ok(Err(unfit));
        }
        let costs = together.costs(PhaseKind::Traced, dispatch_ns)?;
        let before = Load::now(&watched);
        let (own_before, clock_before) = (process::own_cpu_ns(), workloads::clock::now_ns());
        let measured = self.run_phases(&mut together, turns, round)?;
        let shared = Shared {
            virtax_cpu_ns: process::own_cpu_ns() - own_before,
            virtax_wall_ns: workloads::clock::now_ns() - clock_before,
            disturbances: Load::now(&watched).disturbances_since(&before),
        };
        let measured = measured.into_iter().zip(costs).map(|(phases, costs)| Measured { phases, costs });
        self.work = work;
        let labels = probes.labels(&names);
        let mut brought = Vec::with_capacity(turns.len());
        for ((turn, member), measured) in turns.iter().zip(&mut members).zip(measured) {
            if let Some(why) = member.server.failure() {
                return Err(Error::workload(format!("the server of `{}` failed", member.name), why));
            }
            brought.push(self.brought(*turn, member, measured, &labels, round, &shared)?);
        }
        self.probes = Some(probes);
        Ok(Ok(brought))
    }

    /// Starts servers and clients, one after another; each client rests from when it works.
    fn start_all(&mut self, turns: &[Turn<'_>]) -> Result<(Vec<Member>, Names)> {
        let mut members = Vec::with_capacity(turns.len());
        let mut names = self.bench.wire.names()?;
        for Turn { configuration, .. } in turns {
            interrupt::check()?;
            log::debug!("step: server of `{configuration}`");
            let mut server = self.start_server(configuration)?;
            log::debug!("step: client of `{configuration}`");
            let mut client = self.start_client(configuration, server.as_mut())?;
            client.ask_in(&[])?;
            let (own, parties) = self.who_and_where(server.as_ref(), client.as_ref())?;
            server.label(&mut names)?;
            process::check_placement(client.pid(), &self.cpus.client)?;
            process::check_placement(server.pid(), &self.cpus.server)?;
            members.push(Member { name: configuration.to_string(), parties, names: own, client, server });
        }
        Ok((members, names))
    }

    /// The phases of a round, by member.
    fn run_phases(&mut self, together: &mut Together<'_>, turns: &[Turn<'_>], round: u32) -> Result<Vec<Vec<Either>>> {
        let taken = |turn: &Turn<'_>| self.sampled.remove(&turn.configuration.to_string()).unwrap_or_default();
        let mut so_far: Vec<Stages> = turns.iter().map(taken).collect();
        let rounds = f64::from(self.plan.spec.rounds);
        let needed = self.sampling.until.map(|until| needed(until, round, rounds));
        let mut quotas: Vec<SampleQuota<'_>> = so_far.iter_mut().map(|so_far| SampleQuota { so_far, needed }).collect();
        let mut done: Vec<Vec<Either>> = turns.iter().map(|_| Vec::new()).collect();
        let mut probed = |together: &mut Together<'_>, kind, length, done: &mut Vec<Vec<Either>>| -> Result<bool> {
            let labels = together.labels();
            for ((done, quota), phase) in done.iter_mut().zip(&mut quotas).zip(together.probed(kind, length)?) {
                quota.add(&phase, &labels)?;
                done.push(Either::Probed(phase));
            }
            Ok(quotas.iter().all(SampleQuota::is_met))
        };
        let mut is_met = true;
        for (kind, length) in &self.phases {
            let (before, began_ns) = (together.accounts()?, workloads::clock::now_ns());
            let firsts: Vec<usize> = done.iter().map(Vec::len).collect();
            if *kind == PhaseKind::Detached {
                for phases in together.detached(*length)? {
                    together.aim_at(self.plan.spec.records_per_s, &phases);
                    // Who shares no block that was measured again has no part in those.
                    let parts = done.iter_mut().zip(phases).filter(|(_, phase)| !phase.windows.is_empty());
                    parts.for_each(|(done, phase)| done.push(Either::Detached(phase)));
                }
            } else {
                is_met = probed(together, *kind, *length, &mut done)?;
            }
            let wall_ns = workloads::clock::now_ns() - began_ns;
            let accounts = before.into_iter().zip(together.accounts()?);
            for ((done, first), (before, after)) in done.iter_mut().zip(firsts).zip(accounts) {
                let phase = done.get_mut(first);
                phase.into_iter().for_each(|phase| phase.set_account(account_since(before, after, wall_ns)));
            }
        }
        let has_sampled = self.phases.iter().any(|(kind, _)| *kind == PhaseKind::Sampled);
        for _ in 0..MOST_PHASES {
            if !has_sampled || is_met {
                break;
            }
            is_met = probed(together, PhaseKind::Sampled, PROLONGED, &mut done)?;
        }
        for (turn, so_far) in turns.iter().zip(so_far) {
            self.sampled.insert(turn.configuration.to_string(), so_far);
        }
        Ok(done)
    }

    /// What a member brings home.
    fn brought(
        &self,
        turn: Turn<'_>,
        member: &mut Member,
        measured: Measured,
        labels: &Labels,
        round: u32,
        shared: &Shared,
    ) -> Result<Brought> {
        let pid = member.server.pid();
        let Named { phases, records, sampled } = Named::of(measured.phases, labels, round)?;
        let profile = self.profile(&sampled, labels, round, None)?;
        let met = devices_met(&phases);
        let repetition = Repetition {
            round,
            configuration: turn.configuration.to_string(),
            position: turn.position,
            connections: follows(self.plan.workload)?.tokens(&self.plan.settings),
            settings: engine::verified_settings(pid)?
                .into_iter()
                .chain(member.server.facts())
                .chain(setup::of_process(pid))
                .collect(),
            devices: labels.devices().filter(|found| is_on_path(found, &met, &member.names)).cloned().collect(),
            server_hooks: hooks_of(pid),
            client_hooks: hooks_in(self.bench.wire.namespace.path()),
            phases,
            costs: measured.costs,
            guest_costs: None,
            disturbances: shared.disturbances.clone(),
            virtax_cpu_ns: shared.virtax_cpu_ns,
            virtax_wall_ns: shared.virtax_wall_ns,
        };
        Ok(Brought { repetition, records, profile })
    }
}

/// Why a member has to be measured alone, if its server has limits that are restored while it rests.
fn limits_of(member: &Member) -> Option<(String, String)> {
    let limits = cgroup::limits_restored(member.server.pid());
    (!limits.is_empty()).then(|| {
        let why = format!("its server has a limit that is restored while it rests ({})", limits.join("; "));
        (member.name.clone(), why)
    })
}

/// Whether a device is one that a member's requests met: others of the same label belong to others' namespaces.
fn is_on_path(device: &DeviceInfo, met: &BTreeSet<String>, names: &Names) -> bool {
    met.contains(&device.label) && names.label(device.namespace, &device.name) == device.label
}
