"""Batches made by worker processes, given back in the order in which they were asked for."""

import queue
import threading
from collections import deque

import numpy as np
import torch
import torch.multiprocessing as mp

from .prompts import Coder
from .samples import batch

DEPTH = 3  # batches ahead, per worker


def work(tokenizer, orders, results):
    """A worker's life: an order (counts, seed) in, a batch out; None ends it."""
    torch.set_num_threads(1)
    coder = Coder(tokenizer)
    for counts, seed in iter(orders.get, None):
        results.put(batch(coder, counts, seed))


class Feed:
    """Workers in a ring: order k goes to worker k mod n, so results come back in order. Start it before CUDA."""

    def __init__(self, tokenizer, n_workers, device):
        self.device, self.tokenizer, self.pending = device, tokenizer, deque()
        self.orders, self.results, self.sent = [], [], 0
        context = mp.get_context("fork")
        for _ in range(n_workers):
            orders, results = context.Queue(), context.Queue(DEPTH)
            context.Process(target=work, args=(tokenizer, orders, results), daemon=True).start()
            self.orders.append(orders)
            self.results.append(results)
        self.coder = None if n_workers else Coder(tokenizer)

    def stream(self, make_order, first, last):
        """Batches of orders `make_order(first..last-1)`, moved to the device; leaves no order behind if it is read to the end."""
        if not self.orders:
            for step in range(first, last):
                yield moved(batch(self.coder, *make_order(step)), self.device)
            return
        ready = queue.Queue(2)
        threading.Thread(target=self.collect, args=(make_order, first, last, ready), daemon=True).start()
        for _ in range(first, last):
            yield moved(ready.get(), self.device)

    def collect(self, make_order, first, last, ready):
        """Sends orders ahead and fetches their results, pinned for a copy that does not wait."""
        n, sent = len(self.orders), first
        for step in range(first, last):
            while sent < min(last, step + n * DEPTH):
                self.orders[sent % n].put(make_order(sent))
                sent += 1
            ready.put(pinned(self.results[step % n].get()))

    def close(self):
        """Ends the workers."""
        for orders in self.orders:
            orders.put(None)


def pinned(data):
    """numpy arrays to tensors in page-locked memory, at any depth."""
    if isinstance(data, dict):
        return {key: pinned(value) for key, value in data.items()}
    if not isinstance(data, np.ndarray):
        return data
    tensor = torch.from_numpy(data)
    return tensor.pin_memory() if torch.cuda.is_available() else tensor


def moved(data, device):
    """Tensors and arrays to the device."""
    if isinstance(data, dict):
        return {key: moved(value, device) for key, value in data.items()}
    if isinstance(data, np.ndarray):
        data = torch.from_numpy(data)
    return data.to(device, non_blocking=True) if isinstance(data, torch.Tensor) else data
