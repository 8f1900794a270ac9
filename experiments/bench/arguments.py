"""Arguments of `python -m experiments.bench`, and what its figures mean."""

import argparse

from experiments.bench.harness.contestant import PLATFORMS
from experiments.bench.harness.targets import TARGETS
from experiments.bench.training import MODES
from tx import cli, plugins

_ABOUT = """\
Every contestant is a process of its own with the same number of threads, bound to the same cores; they take turns,
A B A B, and what is compared are medians over the rounds. A ratio is ours divided by the peer's, taken within a round.
The peers' settings (batch sizes, threads, of PyTorch and Marian whether the C library keeps freed memory) are tried out
first, and each peer runs at its fastest; the JSON lists all that was tried, and every round.

figures of train:
  target_tokens_per_s  target tokens, padding not counted, per second of whole updates: batches made, forward and
                       backward pass with dropout, Adam
  tokens_per_s         the same, source and target tokens together
  flops_per_s          operations of the weight products per second by tx/model/flops.py's count (3 forward passes a
                       step), for the tokens that are no padding
  share_of_peak        flops_per_s divided by the fastest plain matrix product of its type measured in the same run
  mfu                  flops_per_s divided by what the maker prints for dense bfloat16, on GPUs where that is known
  padding_share        share of the positions that hold no token
  batching_share       share of the time spent making batches
  compile_s            what the first pass over the sentences took longer than the others; PyTorch's on a GPU has
                       none, as it compiles when its layouts are tried
  peak_mib             greatest resident memory of the process, which does nothing but train; on a GPU, of the device
  loss                 of the last update, smoothed, in nats: that what was timed does train (ours is less the
                       smoothed targets' own entropy, PyTorch's is not, and is smoothed over
                       all classes whatever loss.smooth_over is)
  An update has as many target tokens in PyTorch as in ours, except where the label says otherwise. A configuration
  that PyTorch would train another model, loss or optimizer in place of is refused.

figures of decode:
  sentences_per_s, tokens_per_s   of beam search without length penalty; tokens of the output, its end not counted.
                       All, ours included, let an end of sentence count where it is among the best BEAM continuations;
                       python -m tx.decode looks at the best 2 x BEAM, as tensor2tensor does
  identical            share of translations that are ours, token by token
  differing            of the others: how often our model gives ours, or theirs, the higher log-probability
  bleu                 sacreBLEU against the references
  first_s              seconds of the first pass (ours compiles in it)

figures of seeds:
  runs_per_hour        whole runs, started as processes, with evaluation and translation: all seeds stacked in one, one
                       by one, and as many processes of one thread as there are threads; what they compile lies in a
                       cache

figures of guards:
  target_tokens_per_s  of the whole training loop as it is; of the same loop, unchecked, that writes its logs and
                       checkpoints, without norms of gradients, the loss monitor, digests, whose they are and the
                       lease; and, unguarded, without either; a round is as many steps as from one checkpoint to the
                       next, in turns of 10
  start_s              seconds from the folder of a run that was stopped to the state that training goes on with: with
                       the checks of whose its files are and of its text, and without

figures of packing:
  target_tokens_per_s  of batches made for an accelerator that is not there, train.steps_per_dispatch at a time, from
                       text that is tokenized: by one thread, and with rows that another process plans ahead, as the
                       training loop has them for an accelerator; a round has 1,000 updates, so that what was planned
                       while the other had its turn hardly counts
  target_tokens_per_cpu_s   the same per second of processor time of the process that makes the batches: what others
                       on the machine take does not count, nor does the process that plans

figures of memory:
  peak_mib, started_mib   greatest resident memory of a process that makes a few updates, and what of it was there
                          when only the libraries were loaded

figures of attention:
  greatest error       of heads and their gradients by query, key and value, beside plain attention in float32, as a
                       share of the greatest number; over causal and not, small and large logits, two members at once
  cells not right      of these, those with something not finite or an error over 0.03. Exit status: 1 where there is
                       one among rows as training has them, padded to a multiple of 128 tokens; those of other lengths
                       are also tried as they are. On a CPU plain JAX takes the place of cuDNN

figures of compile:
  kernels              launches in a step: fusions, products, what is written by hand; on a TPU parts of one program
  GB                   memory that they touch: a slice or a gather counts as what it takes, an update in place as the
                       update, a loop's body as often as the loop turns
  roofline             sum over the kernels of the longer of two, their bytes at the memory's full speed and the
                       operations of their products at the dense bfloat16 peak; and 1.5 us a launch on a GPU
  MFU                  the operations of tx/model/flops.py's count in that time, as a share of the peak
  a token              one turn of beam search's loop, with one turn of each loop within; conditions: how often in it
                       the host decides whether to go on
  No kernel is tried out, so which one a product takes is not what a card would choose; what is fused, and what lies in
  memory, is. An H100 took 1.5 to 1.6 times the roofline for base and big@paper. make compile-venv installs the
  compilers.

sizes:
  The peers split d_model among the heads, and here have the norm after the sub-layer. A scale whose heads shrink less
  than its model, or that puts the norm first, is therefore measured by train and memory with heads that shrink alike
  (at multi30k d_k 16 rather than 32, so that h x d_k = h x d_v = d_model) and the norm after, unless --set says
  otherwise. decode takes a run as it was trained, and refuses one that a peer cannot hold; at multi30k one that all can
  hold is trained with --set model.norm=post --set model.d_k=16 --set model.d_v=16. seeds and guards compare tx with
  itself, at what the scale has.

PyTorch's modes (--modes): `eager` and `compiled` train the library's nn.Transformer as its users have it; `tuned` and
`tuned-compiled` the same model written for speed, which may also keep freed memory as ours does.

A peer that is not installed is an error that says so; pip install -e '.[bench]' installs all.
"""


def make_parser(description: str) -> argparse.ArgumentParser:
    """Returns the parser of all commands, of which `description` says what they are."""
    parser = cli.Parser(
        prog="python -m experiments.bench",
        description=description,
        epilog=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(plugins.OPTION, metavar="FILE", help=plugins.HELP)
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name, text):
        return commands.add_parser(
            name, help=text, description=text, epilog=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    def add_common(one, rounds):
        if rounds:
            one.add_argument("--rounds", type=_positive, default=5, help="turns of each contestant (default: 5)")
        one.add_argument("--threads", type=_positive, help="of each contestant (default: all cores)")
        one.add_argument("--out", type=cli.path, metavar="FILE.json", help="write the result there")

    def add_size(one, default, peer=True):
        one.add_argument("--size", default=default, help=f"a scale or SWEEP/VARIANT@SCALE (default: {default})")
        one.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a field")
        one.add_argument("--platform", choices=tuple(PLATFORMS), default="cpu")
        if peer:
            one.add_argument("--peer", choices=("torch", "none"), default="torch")
            one.add_argument("--modes", default=",".join(MODES), help=f"of PyTorch (default: {','.join(MODES)})")

    one = add("train", "training speed, ours and PyTorch's")
    add_size(one, "multi30k")
    one.add_argument("--sentences", type=_positive, help="a round passes over so many (default: 4096; paper: 600)")
    add_common(one, rounds=True)
    one = add("decode", "speed of beam search with one trained model")
    _add_decoding(one)
    add_common(one, rounds=True)
    one = add("memory", "peak memory of a training step, ours and PyTorch's")
    add_size(one, "paper")
    one.add_argument("--steps", type=_positive, default=3, help="updates that are made (default: 3)")
    add_common(one, rounds=False)
    one = add("seeds", "runs of many seeds, stacked and one by one")
    add_size(one, "smoke", peer=False)
    one.add_argument("--seeds", type=_positive, default=4, help="how many (default: 4)")
    one.add_argument("--alone", type=_positive, help="of them, how many to make one by one (default: all)")
    add_common(one, rounds=True)
    one = add("guards", "what checkpoints, logs, leases, checks and the loss monitor cost a training run")
    add_size(one, "multi30k", peer=False)
    add_common(one, rounds=True)
    one = add("packing", "batches that the host makes, without a device that takes them")
    add_size(one, "multi30k", peer=False)
    one.add_argument("--sentences", type=_positive, default=20000, help="packed (default: 20000)")
    add_common(one, rounds=True)
    add_common(_add_attention(add), rounds=False)
    add_common(_add_compiled(add), rounds=False)
    _add_table(add("table", "a table of ratios from results"))
    return parser


def _add_attention(add):
    one = add("attention", "where cuDNN's attention is not right, over lengths and widths")
    one.add_argument("--lengths", type=_numbers, help="of rows, at least 4 (default: 64,128,192,256)")
    one.add_argument("--widths", type=_numbers, help="of heads (default: 16,32,64)")
    one.add_argument("--platform", choices=tuple(PLATFORMS), default="cpu")
    return one


def _add_compiled(add):
    one = add("compile", "kernels, bytes and roofline of a step compiled for an accelerator that is not there")
    one.add_argument("run", help="SWEEP/VARIANT@SCALE, e.g. table3/base@multi30k")
    one.add_argument("--target", choices=tuple(TARGETS), required=True)
    one.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a field")
    one.add_argument("--stack", type=_positive, default=1, metavar="N", help="N runs side by side (default: 1)")
    one.add_argument("--decode", action="store_true", help="beam search instead of a training step")
    one.add_argument("--length", type=_positive, default=32, help="with --decode: tokens of a source (default: 32)")
    one.add_argument("--beside", type=cli.path, metavar="FILE.json", help="show an earlier result beside this one")
    one.add_argument("--hlo", type=cli.path, metavar="FILE.txt", help="write the compiled program there")
    return one


def _add_decoding(one):
    one.add_argument("run", type=cli.path, help="folder of a trained run, e.g. runs/table3@multi30k/base/seed1")
    one.set_defaults(platform="cpu")
    one.add_argument("--split", help="whose sentences (default: the first of the run's decode.splits)")
    one.add_argument("--beam", type=_positive, default=4)
    one.add_argument("--peers", default="ctranslate2", help="ctranslate2, ctranslate2-int8, marian; or none")
    one.add_argument("--sentences", type=_positive, default=0, help="only so many, from the first")


def _add_table(one):
    one.add_argument("files", nargs="+", type=cli.path, metavar="FILE.json", help="a result, or a folder of them")
    one.add_argument("--readme", type=cli.path, help="instead, renew the table in this file's markers")
    one.add_argument("--check", action="store_true", help="with --readme: only exit 1 if it is stale")


def _positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1; got {text}")
    return value


def _numbers(text):
    return tuple(_positive(each) for each in text.split(","))
