//! A tree of frames with two widths, so that two configurations can be held against each other frame by frame.

use virtax_analysis::stacks::Weighted;

/// A frame, with everything above it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// What it is called.
    pub name: String,
    /// The layer whose colour it has.
    pub layer: Option<String>,
    /// Width in the baseline, ns per operation, what lies above it included.
    pub before_ns: f64,
    /// Width in the candidate (or in the only configuration).
    pub after_ns: f64,
    /// The frames on top of it, in the order in which they were first met.
    pub children: Vec<Node>,
}

/// Whose stacks are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The baseline's.
    Before,
    /// The candidate's, or the only ones.
    After,
}

impl Node {
    /// A root without anything on it.
    #[must_use]
    pub fn root(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    fn widen(&mut self, side: Side, ns: f64) {
        match side {
            Side::Before => self.before_ns += ns,
            Side::After => self.after_ns += ns,
        }
    }

    /// Adds stacks. Negative times (a residual of the client's ends) have no width.
    pub fn add(&mut self, stacks: &[Weighted], side: Side) {
        for stack in stacks.iter().filter(|stack| stack.ns > 0.0) {
            self.widen(side, stack.ns);
            let mut node = &mut *self;
            for frame in &stack.frames {
                let found =
                    node.children.iter().position(|child| child.name == frame.name && child.layer == frame.layer);
                let index = found.unwrap_or_else(|| {
                    node.children.push(Self {
                        name: frame.name.clone(),
                        layer: frame.layer.clone(),
                        ..Self::default()
                    });
                    node.children.len() - 1
                });
                node = &mut node.children[index];
                node.widen(side, stack.ns);
            }
        }
    }

    /// What of its width in the candidate has nothing on top, ns.
    #[must_use]
    pub fn own_after_ns(&self) -> f64 {
        (self.after_ns - self.children.iter().map(|child| child.after_ns).sum::<f64>()).max(0.0)
    }

    /// Width of its own in the baseline.
    #[must_use]
    pub fn own_before_ns(&self) -> f64 {
        (self.before_ns - self.children.iter().map(|child| child.before_ns).sum::<f64>()).max(0.0)
    }

    /// Candidate less baseline, ns.
    #[must_use]
    pub fn delta_ns(&self) -> f64 {
        self.after_ns - self.before_ns
    }

    /// Calls a function on every frame above the root, with the frames beneath it, outermost first.
    pub fn visit<'a>(&'a self, function: &mut dyn FnMut(&[&'a Node])) {
        fn walk<'a>(node: &'a Node, path: &mut Vec<&'a Node>, function: &mut dyn FnMut(&[&'a Node])) {
            path.push(node);
            function(path);
            for child in &node.children {
                walk(child, path, function);
            }
            path.pop();
        }
        let mut path = Vec::new();
        for child in &self.children {
            walk(child, &mut path, function);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use virtax_analysis::stacks::Named;

    fn stack(path: &str, ns: f64) -> Weighted {
        let frames = path.split(';').map(|name| Named { name: name.to_owned(), layer: None }).collect();
        Weighted { stage: None, frames, ns }
    }

    #[test]
    fn both_sides_meet_in_their_frames() {
        let mut root = Node::root("all");
        root.add(&[stack("a;b", 30.0), stack("a", 10.0), stack("c", 5.0)], Side::Before);
        root.add(&[stack("a;b", 70.0), stack("a;d", 20.0)], Side::After);
        assert_eq!((root.before_ns, root.after_ns), (45.0, 90.0));
        let a = &root.children[0];
        assert_eq!((a.name.as_str(), a.before_ns, a.after_ns), ("a", 40.0, 90.0));
        assert_eq!((a.own_before_ns(), a.own_after_ns(), a.delta_ns()), (10.0, 0.0, 50.0));
        assert_eq!(a.children.iter().map(|child| child.delta_ns()).collect::<Vec<_>>(), [40.0, 20.0]);
        let mut seen = Vec::new();
        root.visit(&mut |path| seen.push(path.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(";")));
        assert_eq!(seen, ["a", "a;b", "a;d", "c"]);
    }

    proptest! {
        #[test]
        fn a_roots_width_is_the_sum_of_its_stacks(stacks in prop::collection::vec(("[ab](;[ab]){0,3}", 0.0f64..1000.0), 0..40)) {
            let stacks: Vec<Weighted> = stacks.iter().map(|(path, ns)| stack(path, *ns)).collect();
            let mut root = Node::root("all");
            root.add(&stacks, Side::After);
            let whole: f64 = stacks.iter().map(|stack| stack.ns).sum();
            let mut own = root.own_after_ns();
            root.visit(&mut |path| own += path[path.len() - 1].own_after_ns());
            prop_assert!((root.after_ns - whole).abs() < 1e-6 && (own - whole).abs() < 1e-6);
        }
    }
}
