"""Handwritten digits: load, train, test. Run it with: python examples/digits.py"""

import sys

import fastdl
from fastdl import nn, optim, train

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
fastdl.manual_seed(0)
data = train.load_data("digits").split(test_fraction=0.25)
model = nn.MLP([64, 128, 64, 10])
optimizer = optim.AdamW(model.parameters(), lr=1e-3)
trainer = train.Trainer(model, nn.CrossEntropyLoss(label_smoothing=0.1), optimizer)
history = trainer.fit(data.X_train, data.y_train, validation=0.1, epochs=epochs, patience=10)
print(f"test accuracy {trainer.evaluate(data.X_test, data.y_test)['accuracy']:.3f}")
