//! Groups of accounts: their members' CPU time in one clock, with no shared line on the poll path.
//!
//! A group's use is kept by slot: each polling thread adds to a table of its own, indexed by group, and the sum over the slots
//! is taken when somebody reads. So a poll pays one load and, as a group's member, one addition to a line that no other thread
//! writes, and one comparison with that cell's [watch](crate::sum::horizon). A poll of a nested group's member adds to the groups around it
//! as well, so that each group's clock is the sum of its own cells. The tables live as long as the slots, for ever; a group's
//! index is used again with the sums of that moment as its base.
//!
//! # Invariants
//! * Each cell is written by the thread that holds the slot, and only grows: a group's clock never goes back.
//! * A group lives as long as its members, its child groups, and the handles to it, its clock and its timers. All of them are counted
//!   in one place, by the group's [number](GroupId): a member is a number in its record and no more.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::sum::Whole;
use crate::sync::lock;

mod clock;
mod id;
mod shard;
mod spare;

pub use clock::GroupClock;
pub use id::{GroupId, GroupKey};
pub(crate) use shard::Shard;
pub(crate) use spare::Spare;

/// The weight of a group that was given none, and of what has no group.
pub const DEFAULT_WEIGHT: u32 = 100;
/// The weights that a group may have.
const WEIGHTS: std::ops::RangeInclusive<u32> = 1..=10_000;

/// A group that cannot be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum GroupError {
    /// More groups at once than there is room for.
    TooMany {
        /// The most groups that can live at once.
        max: usize,
    },
    /// A weight out of its bounds.
    Weight {
        /// What was asked for.
        asked: u32,
        /// The least weight.
        min: u32,
        /// The greatest.
        max: u32,
    },
    /// Groups nested too deeply.
    TooDeep {
        /// How deep they may be nested.
        max: u32,
    },
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { max } => {
                write!(f, "there are {max} groups already, the most that can live at once; drop some first")
            }
            Self::Weight { asked, min, max } => write!(f, "the weight {asked} is out of bounds: {min} to {max}"),
            Self::TooDeep { max } => write!(f, "groups can be nested {max} deep, and the parent is as deep as that"),
        }
    }
}

impl std::error::Error for GroupError {}

fn check_weight(weight: u32) -> Result<(), GroupError> {
    if WEIGHTS.contains(&weight) {
        Ok(())
    } else {
        Err(GroupError::Weight { asked: weight, min: *WEIGHTS.start(), max: *WEIGHTS.end() })
    }
}

struct Node {
    name: Arc<str>,
    parent: Option<Group>,
    id: GroupId,
}

/// A group of tasks, a tenant say: its clock is the sum of its members', live and ended. Clones are the same group.
///
/// A task spawned by a member is a member too. A group lives as long as a handle or a member; a thread that has made or ended
/// members while it polled may keep it a little longer, until it next waits or makes members of another.
///
/// ```
/// use stipend_timers::Group;
///
/// let tenant = Group::new("tenant-a")?;
/// let batch = Group::builder("batch").parent(&tenant).build()?;
/// assert_eq!(batch.parent(), Some(&tenant));
/// assert!(tenant.cpu_time().is_zero());
/// # Ok::<(), stipend_timers::GroupError>(())
/// ```
pub struct Group(Arc<Node>);

impl Group {
    /// A group of its own.
    ///
    /// # Errors
    /// [`GroupError`] if there are too many groups.
    pub fn new(name: impl Into<Arc<str>>) -> Result<Group, GroupError> {
        Self::builder(name).build()
    }

    /// For a group with more than a name.
    pub fn builder(name: impl Into<Arc<str>>) -> GroupBuilder {
        GroupBuilder { name: name.into(), parent: None, weight: DEFAULT_WEIGHT }
    }

    /// The name; it need not be unique.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The group that this one's time is a part of.
    pub fn parent(&self) -> Option<&Group> {
        self.0.parent.as_ref()
    }

    /// CPU time used by its members and its child groups, up to each one's last boundary. Never goes back.
    pub fn cpu_time(&self) -> Duration {
        Duration::from_nanos(Whole::Group(self.id()).used_ns())
    }

    /// The group's clock, for reading it with the polls in progress, and for timers.
    pub fn cpu_clock(&self) -> GroupClock {
        GroupClock::of(self.clone())
    }

    /// The weight; see [`GroupBuilder::weight`].
    pub fn weight(&self) -> u32 {
        self.id().weight()
    }

    /// Changes the weight, from the next turn on.
    ///
    /// # Errors
    /// [`GroupError::Weight`]; the weight then stays as it was.
    pub fn set_weight(&self, weight: u32) -> Result<(), GroupError> {
        check_weight(weight)?;
        id::set_weight(self.id(), weight);
        Ok(())
    }

    /// A number by which an executor's run queues know the group. It is given to another group when this one has ended.
    pub fn id(&self) -> GroupId {
        self.0.id
    }
}

impl Group {
    /// A handle to the group that has this number, of which the caller gives it its reference.
    pub(crate) fn of(id: GroupId) -> Option<Group> {
        id::node(id).map(Self)
    }
}

/// A group that lives as long as this, by its number; or none.
pub(crate) struct Held(GroupId);

impl Held {
    /// Takes over a reference.
    pub(crate) fn new(id: GroupId) -> Self {
        Self(id)
    }

    /// The clocks of the group and the groups around it.
    pub(crate) fn wholes(&self) -> impl Iterator<Item = Whole> + use<> {
        self.0.chain().map(Whole::Group)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.0 != GroupId::NONE {
            self.0.release();
        }
    }
}

impl Clone for Group {
    fn clone(&self) -> Self {
        self.id().retain_many(1);
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.id().release();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        id::give_back(self.id);
    }
}

impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Group {}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("name", &self.0.name).finish_non_exhaustive()
    }
}

/// Makes a [`Group`].
#[derive(Clone, Debug)]
#[must_use = "a builder makes nothing until `build`"]
pub struct GroupBuilder {
    name: Arc<str>,
    parent: Option<Group>,
    weight: u32,
}

impl GroupBuilder {
    /// Makes the group's time a part of this one's.
    pub fn parent(mut self, parent: &Group) -> Self {
        self.parent = Some(parent.clone());
        self
    }

    /// What share of its parent's time the group gets when its siblings want more than there is: in proportion to the
    /// weights, 1 to 10,000, 100 by default (`cpu.weight` of cgroup v2). Without contention it means nothing.
    ///
    /// The parent's own tasks together stand beside its child groups like one more child, of weight 100; so do the tasks that
    /// have no group beside the groups that have no parent. A group with one runnable task can use one processor at most, and
    /// what it cannot use goes to the others.
    ///
    /// ```
    /// use stipend_timers::{Group, GroupError};
    ///
    /// let gold = Group::builder("gold").weight(400).build()?;
    /// assert_eq!(gold.weight(), 400);
    /// gold.set_weight(800)?;
    /// assert_eq!(gold.set_weight(0), Err(GroupError::Weight { asked: 0, min: 1, max: 10_000 }));
    /// # Ok::<(), GroupError>(())
    /// ```
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Makes it.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn build(self) -> Result<Group, GroupError> {
        check_weight(self.weight)?;
        let above = self.parent.as_ref().map_or(GroupId::NONE, Group::id);
        if above.depth() >= GroupId::MAX_DEPTH {
            return Err(GroupError::TooDeep { max: GroupId::MAX_DEPTH });
        }
        let id = id::take(self.weight, above).ok_or(GroupError::TooMany { max: GroupId::LIMIT - 1 })?;
        let node = Arc::new(Node { name: self.name, parent: self.parent, id });
        id::begin(id, Arc::clone(&node));
        Ok(Group(node))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn g15_the_default_weight_is_100_and_1_to_10_000_are_allowed() {
        assert_eq!(Group::new("plain").unwrap().weight(), 100);
        for weight in [1, 10_000] {
            assert_eq!(Group::builder("bound").weight(weight).build().unwrap().weight(), weight);
        }
        for asked in [0, 10_001] {
            let refused = GroupError::Weight { asked, min: 1, max: 10_000 };
            assert_eq!(Group::builder("beyond").weight(asked).build(), Err(refused));
        }
    }

    #[test]
    fn a_refused_weight_leaves_the_old_one() {
        let group = Group::builder("kept").weight(7).build().unwrap();
        assert!(group.set_weight(0).is_err());
        assert_eq!(group.weight(), 7);
        group.set_weight(9).unwrap();
        assert_eq!(group.weight(), 9);
    }

    #[test]
    fn a_number_tells_parent_and_depth_and_its_serial_moves_on() {
        let parent = Group::new("parent").unwrap();
        let heir = (0..1_000).find_map(|_| {
            let child = Group::builder("child").parent(&parent).build().unwrap();
            let id = child.id();
            assert_eq!((id.parent(), id.depth(), parent.id().depth()), (parent.id(), 2, 1));
            let serial = id.serial();
            drop(child);
            // Numbers are handed out last in, first out, but another test may be faster.
            let heir = Some(Group::new("heir").unwrap()).filter(|heir| heir.id() == id)?;
            Some((heir, serial))
        });
        let (heir, serial) = heir.expect("a group that has the number of the one before");
        assert_ne!(heir.id().serial(), serial);
        assert_eq!((heir.id().parent(), heir.id().depth()), (GroupId::NONE, 1));
    }

    #[test]
    fn groups_nested_too_deeply_are_refused() {
        let mut group = Group::new("top").unwrap();
        for _ in 1..GroupId::MAX_DEPTH {
            group = Group::builder("below").parent(&group).build().unwrap();
        }
        assert_eq!(
            Group::builder("too deep").parent(&group).build(),
            Err(GroupError::TooDeep { max: GroupId::MAX_DEPTH })
        );
    }
}
