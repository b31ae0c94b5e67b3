"""The viewer's side panel: controls, images, values and plots over time."""

import math
from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
import viser
from viser import uplot

from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.view.depth_colors import colorize_depth
from dexgrasp_sim.view.source import Moment, Source

_PICTURE_WIDTH = 720
_GAP = 4
_PAPER = 255
_HISTORY = 300
_PLOT_HEIGHT = 150
_REDRAW_PERIOD_S = 0.1
_PAUSE, _RUN, _STEP, _RESTART = "Pause", "Run", "Step", "New episode"
_BLUE, _ORANGE, _GREEN = "#1c7ed6", "#e8590c", "#2b8a3e"


@dataclass
class Wishes:
    """Requests of the user that the viewer has not yet carried out.

    Attributes:
        is_paused: Whether the simulation is paused.
        step: Whether to make one control step.
        restart: Whether to start a new episode.
        env: Environment to show; None: no change.
    """

    is_paused: bool = False
    step: bool = False
    restart: bool = False
    env: int | None = None


class Panel:
    """The side panel. Callbacks of the page only write `wishes`."""

    def __init__(self, gui: viser.GuiApi, source: Source, config: GraspConfig) -> None:
        """Adds the elements.

        Args:
            gui: What to add to.
            source: What is shown; without `is_driven` there are no buttons.
            config: The task.
        """
        self.wishes = Wishes()
        self._config = config
        self._samples: deque[tuple[float, ...]] = deque(maxlen=_HISTORY)
        self._env = source.env
        self._drawn_s = -math.inf
        gui.configure_theme(control_width="large", show_logo=False, show_share_button=False)
        gui.main_panel.dock_right()
        gui.set_panel_label("dexgrasp")
        gui.add_markdown(f"### {source.name}")
        if source.is_driven:
            self._add_buttons(gui)
        if source.num_envs > 1:
            self._add_selector(gui, source)
        self._facts = gui.add_markdown("waiting for the first moment …")
        self._picture = gui.add_image(
            np.full((1, 1, 3), _PAPER, np.uint8),
            label=_caption(source.groups),
            visible=bool(source.groups),
        )
        self._reward = _add_plot(gui, "reward per step", (_BLUE,), ("reward",))
        self._lengths = _add_plot(
            gui,
            "object: height above the table (orange) and distance to the goal (green), m",
            (_ORANGE, _GREEN),
            ("height", "distance"),
        )

    def show(self, moment: Moment) -> None:
        """Updates values, images and plots."""
        rows = [f"| {name} | {text} |" for name, text in moment.facts.items()]
        self._facts.content = "\n".join(["| | |", "|---|---|", *rows])
        tiles = self._tiles(moment)
        if tiles:
            self._picture.image = _side_by_side(tiles)
        self._remember(moment)
        if abs(moment.time_s - self._drawn_s) >= _REDRAW_PERIOD_S and len(self._samples) > 1:
            self._drawn_s = moment.time_s
            time_s, reward, height_m, distance_m = np.array(self._samples).T
            self._reward.data = (time_s, reward)
            self._lengths.data = (time_s, height_m, distance_m)

    def _remember(self, moment: Moment) -> None:
        """Stores the values of the plots; clears them first if the environment has changed."""
        newest_s = self._samples[-1][0] if self._samples else -math.inf
        if moment.env != self._env or moment.time_s < newest_s:
            self._samples.clear()
            self._env, newest_s = moment.env, -math.inf
        if moment.time_s > newest_s:
            position = moment.object_pose[:3]
            height_m = float(position[2]) - self._config.table.top_m
            distance_m = float((position - moment.goal).norm())
            self._samples.append((moment.time_s, moment.reward, height_m, distance_m))

    def _tiles(self, moment: Moment) -> list[np.ndarray]:
        """The images [H, W, 3], in the order of `_caption`."""
        tiles = []
        if "depth" in moment.images:
            depth = moment.images["depth"].numpy()[None]
            tiles.append(colorize_depth(depth, self._config.camera)[0])
        if "stereo_rgb" in moment.images:
            tiles.extend(moment.images["stereo_rgb"].permute(0, 2, 3, 1).numpy())
        return tiles

    def _add_buttons(self, gui: viser.GuiApi) -> None:
        wishes = self.wishes
        buttons = gui.add_button_group("", (_PAUSE, _RUN, _STEP, _RESTART))

        @buttons.on_click
        def _(_: viser.GuiEvent) -> None:
            wishes.is_paused = buttons.value in (_PAUSE, _STEP) or (
                wishes.is_paused and buttons.value == _RESTART
            )
            wishes.step |= buttons.value == _STEP
            wishes.restart |= buttons.value == _RESTART

    def _add_selector(self, gui: viser.GuiApi, source: Source) -> None:
        chosen = gui.add_slider(
            "environment", min=0, max=source.num_envs - 1, step=1, initial_value=source.env
        )

        @chosen.on_update
        def _(_: viser.GuiEvent) -> None:
            self.wishes.env = int(chosen.value)


def _caption(groups: tuple[str, ...]) -> str:
    names = {"depth": "depth (near is bright)", "stereo_rgb": "left and right image"}
    return ", ".join(names[group] for group in groups)


def _side_by_side(tiles: list[np.ndarray]) -> np.ndarray:
    """All images in one, enlarged by an integer factor."""
    height, width = tiles[0].shape[:2]
    factor = max(1, _PICTURE_WIDTH // (len(tiles) * width))
    size = (factor * width, factor * height)
    gap = np.full((factor * height, _GAP, 3), _PAPER, np.uint8)
    parts = []
    for tile in tiles:
        parts += [cv2.resize(tile, size, interpolation=cv2.INTER_NEAREST), gap]
    return np.concatenate(parts[:-1], axis=1)


def _add_plot(
    gui: viser.GuiApi, title: str, colors: tuple[str, ...], names: tuple[str, ...]
) -> viser.GuiUplotHandle:
    nothing = np.zeros(2)
    lines = [uplot.Series(label=name, stroke=color, width=2) for name, color in zip(names, colors)]
    return gui.add_uplot(
        (nothing, *[nothing] * len(lines)),
        (uplot.Series(label="s"), *lines),
        title=title,
        scales={"x": uplot.Scale(time=False, auto=True), "y": uplot.Scale(auto=True)},
        legend=uplot.Legend(show=False),
        height=_PLOT_HEIGHT,
    )
