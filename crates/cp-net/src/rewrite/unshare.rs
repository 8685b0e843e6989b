//! A layer's own copy of what it shares with others.

use crate::error::NetError;
use crate::network::Network;
use crate::network::node::Node;

impl Network {
    /// Gives `layer` its own copies of the parameters that it shares with other nodes, so that it can be factorized or trained by
    /// itself. The number of parameters that were copied.
    ///
    /// Where a shared parameter bears the name that is `layer`'s by default, the others get the copy, and go on sharing that.
    ///
    /// # Errors
    /// [`NetError::UnknownLayer`], [`NetError::AlreadyFactorized`].
    pub fn unshare(&mut self, layer: &str) -> Result<usize, NetError> {
        let position = self.arch.position(layer)?;
        let slots: Vec<&str> =
            self.arch.nodes[position].op.params().iter().map(|spec| spec.slot).collect();
        let mut copied = 0;
        for slot in slots {
            let name = self.arch.nodes[position].param(slot);
            let uses = |node: &Node| node.param_specs().any(|(param, _)| param == name);
            let others: Vec<usize> = (0..self.arch.nodes.len())
                .filter(|&other| other != position && uses(&self.arch.nodes[other]))
                .collect();
            let Some(&other) = others.first() else { continue };
            let own = format!("{layer}.{slot}");
            let (users, copy) = if name == own {
                (others, self.free_name(&format!("{}.{slot}", self.arch.nodes[other].name)))
            } else {
                (vec![position], self.free_name(&own))
            };
            for user in users {
                let node = &mut self.arch.nodes[user];
                for spec in node.op.params() {
                    if node.param(spec.slot) == name {
                        node.set_param(spec.slot, copy.clone());
                    }
                }
            }
            if let Some(array) = self.params.get(&name).cloned() {
                self.params.insert(copy, array);
                copied += 1;
            }
        }
        Ok(copied)
    }

    /// `wanted`, or the next name like it that no parameter has.
    pub(super) fn free_name(&self, wanted: &str) -> String {
        let numbered = (1..).map(|number| format!("{wanted}.{number}"));
        std::iter::once(wanted.to_string())
            .chain(numbered)
            .find(|name| !self.params.contains_key(name))
            .unwrap_or_default()
    }
}
