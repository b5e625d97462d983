//! A thread that takes orders and answers: for what blocks in the kernel, beside the one loop.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The two ends of such a thread.
pub struct Worker<Order, Answer> {
    orders: Sender<Order>,
    answers: UnboundedReceiver<Answer>,
}

impl<Order: Send + 'static, Answer: Send + 'static> Worker<Order, Answer> {
    /// Starts the thread, in the calling thread's network namespace. `work` is to end when it gets no more orders, or
    /// when its answers are no longer taken.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn spawn(
        name: &str,
        work: impl FnOnce(&Receiver<Order>, &UnboundedSender<Answer>) + Send + 'static,
    ) -> io::Result<Self> {
        let (orders, inbox) = channel();
        let (outbox, answers) = unbounded_channel();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&inbox, &outbox))?;
        Ok(Self { orders, answers })
    }

    /// Gives an order.
    pub fn order(&self, order: Order) {
        // The thread ends with this worker, or by a panic, which `answer` shows.
        let _ = self.orders.send(order);
    }

    /// The next answer. Dropping the future loses nothing. `None`: the thread has ended.
    pub async fn answer(&mut self) -> Option<Answer> {
        self.answers.recv().await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn each_order_is_answered_until_the_thread_ends() {
        let mut worker = Worker::spawn("worker", |inbox, outbox| {
            for order in inbox.iter().take(2) {
                outbox.send(order + 1).unwrap();
            }
        })
        .unwrap();
        for order in [1, 2] {
            worker.order(order);
            assert_eq!(worker.answer().await, Some(order + 1));
        }
        assert_eq!(worker.answer().await, None);
        // The thread is gone, and an order to it is no failure.
        worker.order(3);
    }
}
