"""A tiny InternLM-XComposer2: CLIP tower, two-layer projector, InternLM2 with Partial LoRA. Tensor names are the published ones.

Shapes: B rows of a batch, T tokens, D = n_embd. Rows of the widths below are multiples of 256, so every GGUF type fits.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Config:
    """Sizes; the rest of `config.json` is in `export`."""

    image_size: int = 168
    patch_size: int = 14
    n_patches: int = 144
    vision_embd: int = 256
    vision_layer: int = 5
    vision_head: int = 4
    vision_ff: int = 768
    n_embd: int = 256
    n_layer: int = 8
    n_head: int = 4
    n_head_kv: int = 2
    d_head: int = 64
    n_ff: int = 768
    rank: int = 32
    n_vocab: int = 2048
    rope_theta: float = 1e6
    eps: float = 1e-5
    n_ctx: int = 2048


class PLoRALinear(nn.Module):
    """`W x + m B A x`: the low-rank part only where the mask m is one, at the rows of a picture."""

    def __init__(self, n_in, n_out, rank, std=0.02):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) * std)
        self.Plora_A, self.Plora_B = nn.Linear(n_in, rank, bias=False), nn.Linear(rank, n_out, bias=False)
        nn.init.normal_(self.Plora_A.weight, std=1 / math.sqrt(n_in))
        nn.init.zeros_(self.Plora_B.weight)

    def forward(self, x, mask):
        y = F.linear(x, self.weight)
        return y if mask is None else y + self.Plora_B(self.Plora_A(x) * mask)


class RMSNorm(nn.Module):
    """Statistics in float32."""

    def __init__(self, n, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(n)), eps

    def forward(self, x):
        y = x.float()
        return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight).to(x.dtype)


class Attention(nn.Module):
    """Weights of the decoder's attention; wqkv is packed per KV group: `[q.. q k v]`."""

    def __init__(self, c):
        super().__init__()
        self.wqkv = PLoRALinear(c.n_embd, (c.n_head + 2 * c.n_head_kv) * c.d_head, c.rank)
        self.wo = PLoRALinear(c.n_head * c.d_head, c.n_embd, c.rank, 0.02 / math.sqrt(2 * c.n_layer))


class FeedForward(nn.Module):
    """SwiGLU: w1 gate, w3 up, w2 down."""

    def __init__(self, c):
        super().__init__()
        self.w1, self.w3 = PLoRALinear(c.n_embd, c.n_ff, c.rank), PLoRALinear(c.n_embd, c.n_ff, c.rank)
        self.w2 = PLoRALinear(c.n_ff, c.n_embd, c.rank, 0.02 / math.sqrt(2 * c.n_layer))

    def forward(self, x, mask):
        return self.w2(F.silu(self.w1(x, mask)) * self.w3(x, mask), mask)


def rotate(x, cos, sin):
    """Rotary embedding with halves paired: dimension i with i + d/2."""
    a, b = x.chunk(2, -1)
    return (x * cos + torch.cat((-b, a), -1) * sin).to(x.dtype)


class DecoderLayer(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, c):
        super().__init__()
        self.c, self.attention, self.feed_forward = c, Attention(c), FeedForward(c)
        self.attention_norm, self.ffn_norm = RMSNorm(c.n_embd, c.eps), RMSNorm(c.n_embd, c.eps)

    def attend(self, x, cos, sin, mask):
        c, (b, t, _), group = self.c, x.shape, self.c.n_head // self.c.n_head_kv
        qkv = self.attention.wqkv(x, mask).view(b, t, c.n_head_kv, group + 2, c.d_head)
        q, k, v = qkv[:, :, :, :group].flatten(2, 3), qkv[:, :, :, group], qkv[:, :, :, group + 1]
        q, k, v = (z.transpose(1, 2) for z in (q, k, v))  # [B, heads, T, d_head]
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k, v = (z[:, :, None].expand(-1, -1, group, -1, -1).flatten(1, 2) for z in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.attention.wo(y.transpose(1, 2).flatten(2), mask)

    def forward(self, x, cos, sin, mask):
        x = x + self.attend(self.attention_norm(x), cos, sin, mask)
        return x + self.feed_forward(self.ffn_norm(x), mask)


class VisionAttention(nn.Module):
    """Full attention with biases."""

    def __init__(self, c):
        super().__init__()
        self.n_head = c.vision_head
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(self, name, nn.Linear(c.vision_embd, c.vision_embd))

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (p(x).view(b, t, self.n_head, -1).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, d))


class VisionMlp(nn.Module):
    """fc2(quick_gelu(fc1 x))"""

    def __init__(self, c):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(c.vision_embd, c.vision_ff), nn.Linear(c.vision_ff, c.vision_embd)

    def forward(self, x):
        y = self.fc1(x)
        return self.fc2(y * torch.sigmoid(1.702 * y))


class VisionLayer(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, c):
        super().__init__()
        self.self_attn, self.mlp = VisionAttention(c), VisionMlp(c)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(c.vision_embd, c.eps), nn.LayerNorm(c.vision_embd, c.eps)

    def forward(self, x):
        x = x + self.self_attn(self.layer_norm1(x).to(x.dtype))
        return x + self.mlp(self.layer_norm2(x).to(x.dtype))


class VisionEmbeddings(nn.Module):
    """Patches, class token, positions."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        self.class_embedding = nn.Parameter(torch.randn(c.vision_embd) * 0.02)
        self.patch_embedding = nn.Conv2d(3, c.vision_embd, c.patch_size, c.patch_size, bias=False)
        self.position_embedding = nn.Embedding(c.n_patches + 1, c.vision_embd)
        nn.init.normal_(self.position_embedding.weight, std=0.02)

    def forward(self, pixels):
        b, c, grid = pixels.shape[0], self.c, self.c.image_size // self.c.patch_size
        patches = (
            pixels.view(b, 3, grid, c.patch_size, grid, c.patch_size)
            .permute(0, 2, 4, 1, 3, 5)
            .reshape(b, c.n_patches, -1)
        )
        x = F.linear(patches, self.patch_embedding.weight.flatten(1))  # the convolution, as one product
        first = self.class_embedding.to(x.dtype).expand(b, 1, -1)
        return torch.cat([first, x], 1) + self.position_embedding.weight.to(x.dtype)


class VisionModel(nn.Module):
    """CLIP's tower up to the last layer's output: no post_layernorm, as in the published model."""

    def __init__(self, c):
        super().__init__()
        self.embeddings, self.pre_layrnorm = VisionEmbeddings(c), nn.LayerNorm(c.vision_embd, c.eps)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(VisionLayer(c) for _ in range(c.vision_layer))
        for name, p in self.encoder.named_parameters():
            if name.endswith("bias") and "norm" not in name:
                nn.init.zeros_(p)
            elif p.ndim == 2:
                deep = "out_proj" in name or "fc2" in name
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * c.vision_layer) if deep else 0.03)

    def forward(self, pixels):
        x = self.embeddings(pixels)
        x = self.pre_layrnorm(x).to(x.dtype)
        for layer in self.encoder.layers:
            x = layer(x)
        return x[:, 1:]  # without the class token: [B, n_patches, vision_embd]


class Decoder(nn.Module):
    """InternLM2 without its head."""

    def __init__(self, c):
        super().__init__()
        self.tok_embeddings = nn.Embedding(c.n_vocab, c.n_embd)
        self.layers = nn.ModuleList(DecoderLayer(c) for _ in range(c.n_layer))
        self.norm = RMSNorm(c.n_embd, c.eps)
        nn.init.normal_(self.tok_embeddings.weight, std=0.02)


class XComposer2(nn.Module):
    """The whole model. `plora`: `pictures` as it should be, `off`, or `all` tokens."""

    def __init__(self, c=Config()):
        super().__init__()
        self.c = c
        self.vit = nn.Module()
        self.vit.vision_tower = nn.Module()
        self.vit.vision_tower.vision_model = VisionModel(c)
        self.vision_proj = nn.Sequential(nn.Linear(c.vision_embd, c.n_embd), nn.GELU(), nn.Linear(c.n_embd, c.n_embd))
        self.model, self.output = Decoder(c), nn.Linear(c.n_embd, c.n_vocab, bias=False)
        nn.init.normal_(self.output.weight, std=0.02)
        angle = torch.arange(c.n_ctx)[:, None] / c.rope_theta ** (torch.arange(0, c.d_head, 2) / c.d_head)[None]
        self.register_buffer("cos", torch.cat([angle, angle], -1).cos(), persistent=False)
        self.register_buffer("sin", torch.cat([angle, angle], -1).sin(), persistent=False)

    def tower(self, pixels):
        """[n, 3, side, side] to [n, n_patches, vision_embd]."""
        return self.vit.vision_tower.vision_model(pixels)

    def hidden(self, tokens, rows=None, places=None, plora="pictures"):
        """Last hidden states [B, T, D]. tokens [B, T], negative at picture rows; rows [n, D] go to the flat places."""
        b, t = tokens.shape
        x, mask = self.model.tok_embeddings(tokens.clamp(min=0)), None
        if rows is not None:
            x = x.to(rows.dtype).view(b * t, -1).index_copy(0, places, rows).view(b, t, -1)
            mask = (tokens < 0).to(rows.dtype)[..., None]
        elif torch.is_autocast_enabled():
            x = x.to(torch.bfloat16)
        if plora != "pictures":
            mask = None if plora == "off" else torch.ones_like(tokens).to(x.dtype)[..., None]
        cos, sin = self.cos[:t].to(x.dtype), self.sin[:t].to(x.dtype)
        for layer in self.model.layers:
            x = layer(x, cos, sin, mask)
        return self.model.norm(x)


def part_of(name):
    """Which part a tensor belongs to: `tower`, `projector`, `plora` or `language`."""
    if "Plora" in name:
        return "plora"
    return {"vit": "tower", "vision_proj": "projector"}.get(name.split(".")[0], "language")
