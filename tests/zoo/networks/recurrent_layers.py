"""The layer in front of a recurrent one: a channel goes with the columns of the input weights; hidden units stay."""

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks import Classifier
from zoo.entry import expect


@expect(widths={"stem": 8, "recurrent.weight_ih_l0": (48, 64)})  # in make test
class LSTMOverColumns(Classifier):
    """CRNN (text recognition): a column of all maps, 16 channels x 8 rows, is one step."""

    features = 12

    def layers(self) -> None:
        self.recurrent = nn.LSTM(16 * 8, 12, batch_first=True)

    def body(self, x: Tensor) -> Tensor:
        out, _ = self.recurrent(x.permute(0, 3, 1, 2).flatten(2))
        return out.transpose(1, 2)


@expect(widths={"stem": 8, "recurrent.weight_ih_l0": (36, 8), "recurrent.weight_ih_l0_reverse": (36, 8)})
class BidirectionalGRU(Classifier):
    """The mean of a column is one step, read in both directions."""

    features = 24

    def layers(self) -> None:
        self.recurrent = nn.GRU(16, 12, bidirectional=True, batch_first=True)

    def body(self, x: Tensor) -> Tensor:
        out, _ = self.recurrent(x.mean(2).transpose(1, 2))
        return out.transpose(1, 2)


@expect(widths={"stem": 8, "project": 12, "recurrent.weight_ih_l0": (12, 12)})
class RNNAfterLinear(Classifier):
    """Two layers of a plain recurrent network behind a linear one; only the first reads channels."""

    features = 12

    def layers(self) -> None:
        self.project, self.recurrent = nn.Linear(16, 24), nn.RNN(24, 12, num_layers=2, batch_first=True)

    def body(self, x: Tensor) -> Tensor:
        out, _ = self.recurrent(F.relu(self.project(x.mean(2).transpose(1, 2))))
        return out.transpose(1, 2)


@expect(widths={"stem": 8, "cell.weight_ih": (48, 8)})
class LSTMCellLoop(Classifier):
    """A cell that is called once a step."""

    features = 12

    def layers(self) -> None:
        self.cell = nn.LSTMCell(16, 12)

    def body(self, x: Tensor) -> Tensor:
        hidden = memory = x.new_zeros(len(x), 12)
        for step in x.mean(2).unbind(-1):
            hidden, memory = self.cell(step, (hidden, memory))
        return hidden[..., None]
